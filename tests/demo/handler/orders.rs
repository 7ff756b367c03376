//! The state of orders in PostgreSQL, kept as a handler of orders would: of each order its last version.
//!
//! Each call that runs has a connection; how many of their statements run at once is up to the pool in
//! front of the database. A pool may give each statement another session, so statements have no name.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, NoTls};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A message that comes again changes nothing.
const WRITE: &str = "insert into orders as known (id, version) values ($1, $2) \
     on conflict (id) do update set version = excluded.version where known.version < excluded.version";

/// A change of an order, as its message tells it.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Change {
    order: String,
    #[serde(rename = "event")]
    version: i64,
}

impl Change {
    /// Reads the body of a message; the error says what is wrong.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(body).map_err(|error| format!("the message is no order: {error}"))
    }
}

/// The table of orders: `orders (id text primary key, version bigint not null)`.
pub struct Orders {
    database: Config,
    /// Connections of calls that have ended.
    idle: Mutex<Vec<Client>>,
}

impl Orders {
    /// The table in the database with this URL; nothing is connected yet.
    pub fn new(url: &str) -> Result<Self> {
        let mut database: Config = url.parse().with_context(|| {
            format!("--postgres {url:?} is not a URL such as postgres://user@host:5432/database")
        })?;
        database.connect_timeout(CONNECT_LIMIT);
        Ok(Self {
            database,
            idle: Mutex::default(),
        })
    }

    /// Writes the order's version, unless a later one is known.
    pub async fn write(&self, change: &Change) -> Result<()> {
        let client = match self.take() {
            Some(client) => client,
            None => self.connect().await?,
        };
        let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&change.order, Type::TEXT), (&change.version, Type::INT8)];
        client
            .execute_typed(WRITE, &values)
            .await
            .with_context(|| format!("order {} cannot be written", change.order))?;
        // One that failed is not used again.
        self.idle().push(client);
        Ok(())
    }

    fn take(&self) -> Option<Client> {
        let mut idle = self.idle();
        idle.retain(|client| !client.is_closed());
        idle.pop()
    }

    async fn connect(&self) -> Result<Client> {
        let (client, connection) = self
            .database
            .connect(NoTls)
            .await
            .context("the database cannot be reached")?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("a connection to the database broke off: {error}");
            }
        });
        Ok(client)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_no_order_is_told() {
        let change = Change::read(br#"{"order":"order-7","event":3}"#);
        let expected = Change {
            order: "order-7".into(),
            version: 3,
        };
        assert_eq!(change, Ok(expected));
        let error = Change::read(b"paid").unwrap_err();
        assert!(error.starts_with("the message is no order"), "{error}");
    }

    #[test]
    fn a_wrong_url_is_named() {
        let error = Orders::new("mysql://orders").err().unwrap().to_string();
        assert!(error.contains("mysql://orders"), "{error}");
    }
}
