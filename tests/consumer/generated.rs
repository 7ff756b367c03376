//! What is generated from the protocol of handlers behind gRPC is what lies in the consumer's source.

use std::path::Path;

const FILE: &str = "keylane/v1/handler.proto";

/// Rewrites the file when KEYLANE_REGENERATE is set.
#[test]
fn the_generated_code_is_that_of_the_protocol() {
    let consumer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../consumer");
    let scratch = tempfile::tempdir().unwrap();
    let protocol = protox::compile([FILE], [consumer.join("proto")]).unwrap();
    tonic_prost_build::configure()
        // Bodies are slices of the buffer they came in.
        .bytes(".")
        .out_dir(scratch.path())
        .emit_rerun_if_changed(false)
        .compile_fds(protocol)
        .unwrap();
    let generated = std::fs::read_to_string(scratch.path().join("keylane.v1.rs")).unwrap();
    let path = consumer.join("src/handler/grpc/proto.rs");
    if std::env::var_os("KEYLANE_REGENERATE").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == generated,
        "{} is stale: run KEYLANE_REGENERATE=1 cargo test -p keylane-tests --test consumer generated",
        path.display()
    );
}
