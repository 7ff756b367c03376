//! Bodies that RocketMQ's own producer compressed, and what it sent as a batch.

use crate::function::Function;
use crate::world::World;
use keylane_tests::rocketmq::jars;
use std::time::Duration;
use tokio::process::Command;

const PRODUCER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/consumer/Compressed.java");
/// The kinds in their order (`CompressionType.java`).
const KINDS: [&str; 3] = ["LZ4", "ZSTD", "ZLIB"];
const TIMES: usize = 20_000;
/// Of the producer, with what it waits for at most.
const LIMIT: Duration = Duration::from_secs(180);

/// Runs the producer over a topic, and gives what it prints; it starts from source, which needs a JDK.
async fn produce(world: &World) -> String {
    let lib = tokio::task::spawn_blocking(jars).await.unwrap().unwrap();
    // The client keeps its logs below its user's home.
    let home = tempfile::tempdir().unwrap();
    let output = Command::new("java")
        .args(["-Xmx128m", "-XX:TieredStopAtLevel=1"])
        .arg(format!("-Duser.home={}", home.path().display()))
        .arg("-cp")
        .arg(lib.join("*"))
        .arg(PRODUCER)
        .args([&world.broker().name_server(), &world.topic])
        .arg(TIMES.to_string())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, output)
        .await
        .expect("the producer ends")
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_the_java_client_compressed_and_its_batches_arrive_as_they_were() {
    let world = World::new("compressed", 1).await;
    let printed = produce(&world).await;
    for kind in KINDS {
        let sent = printed.lines().find_map(|line| {
            let (of, size) = line.split_once(' ')?;
            (of == kind).then(|| size.parse::<usize>().unwrap())
        });
        assert!(sent.is_some_and(|sent| sent < TIMES), "{kind}: {printed}");
    }
    let running = Function::taking(&world, &[]).await;
    world.until_committed(6).await;
    let mut bodies = running.bodies();
    assert_eq!(bodies.split_off(3), ["batch-0", "batch-1", "batch-2"]);
    for (body, kind) in bodies.iter().zip(KINDS) {
        assert!(
            *body == kind.repeat(TIMES),
            "{kind}: {} bytes, {:.20}",
            body.len(),
            body
        );
    }
    running.stop().await;
}
