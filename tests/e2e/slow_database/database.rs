//! PostgreSQL in the cluster, with PgBouncer in front of it: a real pool of a few connections. The pool tells
//! how long statements waited for a connection, the database how long they then took.

use anyhow::{Context as _, Result};
use keylane_tests::stack::Stack;
use keylane_tests::{images, wait};
use std::time::Duration;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

const START: Duration = Duration::from_secs(120);
/// The database as the pool calls it.
const NAME: &str = "orders";

/// The database of one namespace.
pub struct Database {
    /// A connection past the pool.
    direct: Client,
    /// The pool's own console.
    console: Client,
}

/// What pool and database have seen so far. Times are sums over all statements.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Statements that have ended.
    pub statements: u64,
    /// Time they waited for a connection.
    pub waited: Duration,
    /// Time they then took.
    pub took: Duration,
}

/// What the database says of the order of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Statements.
    pub writes: i64,
    /// Of them, those that came before an earlier version of their order.
    pub inversions: i64,
    /// Of them, those that began before an earlier one of their order had ended.
    pub overlaps: i64,
    /// Orders.
    pub orders: i64,
    /// Smallest and largest last version of an order.
    pub versions: (i64, i64),
}

impl Database {
    /// Starts it with a pool of so many connections, on each of which a statement takes so long.
    pub async fn start(stack: &Stack, pool: u32, work: Duration) -> Result<Self> {
        let address = tokio::task::block_in_place(|| {
            let cluster = stack.cluster();
            cluster.load(&images::postgres(cluster.paths())?)?;
            let manifest = include_str!("postgres.yaml").replace("@POOL@", &pool.to_string());
            stack.apply("PostgreSQL", &manifest)?;
            stack.rollout(stack.namespace(), "statefulset/postgres")?;
            stack.pod_address(stack.namespace(), "postgres-0")
        })?;
        let database = Self {
            direct: connect(&address, 5433, "postgres").await?,
            console: connect(&address, 5432, "pgbouncer").await?,
        };
        let tables = include_str!("orders.sql");
        database.direct.batch_execute(tables).await?;
        let seconds = work.as_secs_f64();
        let fill = format!("insert into work values ({seconds})");
        database.direct.batch_execute(&fill).await?;
        Ok(database)
    }

    /// A statement takes so long from now on.
    pub async fn work(&self, work: Duration) -> Result<()> {
        let change = format!("update work set seconds = {}", work.as_secs_f64());
        Ok(self.direct.batch_execute(&change).await?)
    }

    /// What was seen so far.
    pub async fn seen(&self) -> Result<Seen> {
        let writes = "select count(*), coalesce(extract(epoch from sum(ended - began)), 0)::float8 from writes";
        let row = self.direct.query_one(writes, &[]).await?;
        let (statements, took): (i64, f64) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Seen {
            statements: u64::try_from(statements)?,
            waited: self.waited().await?,
            took: Duration::try_from_secs_f64(took)?,
        })
    }

    async fn waited(&self) -> Result<Duration> {
        let rows = self.console.simple_query("show stats").await?;
        let row = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) if row.get("database") == Some(NAME) => Some(row),
            _ => None,
        });
        // Before the first client the pool does not list the database.
        let Some(row) = row else {
            return Ok(Duration::ZERO);
        };
        let told = row.try_get("total_wait_time")?;
        let microseconds = told.and_then(|text| text.parse().ok());
        let microseconds = microseconds.with_context(|| {
            format!("the pool says that statements waited {told:?} microseconds")
        })?;
        Ok(Duration::from_micros(microseconds))
    }

    /// Judges all writes.
    pub async fn written(&self) -> Result<Written> {
        let row = self
            .direct
            .query_one(include_str!("verdict.sql"), &[])
            .await?;
        Ok(Written {
            writes: row.try_get("writes")?,
            inversions: row.try_get("inversions")?,
            overlaps: row.try_get("overlaps")?,
            orders: row.try_get("orders")?,
            versions: (row.try_get("earliest")?, row.try_get("latest")?),
        })
    }
}

impl Seen {
    /// What was seen since.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            statements: self.statements.saturating_sub(before.statements),
            waited: self.waited.saturating_sub(before.waited),
            took: self.took.saturating_sub(before.took),
        }
    }

    /// How long a statement waited, and how long it then took; none if there was none.
    pub fn each(&self) -> Option<(Duration, Duration)> {
        let statements = u32::try_from(self.statements).ok()?;
        Some((
            self.waited.checked_div(statements)?,
            self.took.checked_div(statements)?,
        ))
    }
}

async fn connect(address: &str, port: u16, database: &str) -> Result<Client> {
    let url = format!("postgres://orders@{address}:{port}/{database}?connect_timeout=5");
    let what = format!("database {database} at {address}:{port} answers");
    let (client, connection) = wait::until(START, what, async || {
        tokio_postgres::connect(&url, NoTls).await
    })
    .await?;
    // It ends with its client.
    tokio::spawn(connection);
    Ok(client)
}
