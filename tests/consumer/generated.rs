//! What is generated from the protocol of handlers behind gRPC is what lies in the source of the consumer and of
//! the sample in Go.

use prost::Message;
use std::path::Path;

const FILE: &str = "keylane/v1/handler.proto";

/// Rewrites the file when KEYLANE_REGENERATE is set.
#[test]
fn the_generated_code_is_that_of_the_protocol() {
    let consumer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../consumer");
    let scratch = tempfile::tempdir().unwrap();
    let protocol = protox::compile([FILE], [consumer.join("proto")]).unwrap();
    tonic_prost_build::configure()
        // A body is shared with the message that it is of, and not copied again.
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

/// The sample in Go has its own generated code, made by protoc: the description of the protocol that it
/// carries is the protocol.
#[test]
fn the_sample_in_go_has_the_code_of_the_protocol() {
    let consumer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../consumer");
    let protocol = protox::compile([FILE], [consumer.join("proto")]).unwrap();
    let mut wanted = protocol.file[0].clone();
    // Comments, which protoc leaves out.
    wanted.source_code_info = None;
    let path = consumer.join("samples/go/keylanev1/handler.pb.go");
    let code = std::fs::read_to_string(&path).unwrap();
    let described = description_in_go(&code);
    let mut found = wanted.clone();
    found.clear();
    found.merge(described.as_slice()).unwrap();
    assert_eq!(
        found,
        wanted,
        "{} is stale: run go generate in consumer/samples/go",
        path.display()
    );
}

/// The bytes of the constant that ends with `_rawDesc`, lines of quoted text.
fn description_in_go(code: &str) -> Vec<u8> {
    let lines = code.lines();
    let lines =
        lines.skip_while(|line| !(line.starts_with("const ") && line.contains("_rawDesc =")));
    let mut bytes = Vec::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let (Some(begin), Some(end)) = (line.find('"'), line.rfind('"')) else {
            panic!("{line} has no text");
        };
        let mut text = line[begin + 1..end].chars();
        while let Some(char) = text.next() {
            let escaped = (char == '\\').then(|| text.next().unwrap());
            match escaped {
                None => bytes.extend(char.to_string().bytes()),
                Some('x') => {
                    let digits: String = text.by_ref().take(2).collect();
                    bytes.push(u8::from_str_radix(&digits, 16).unwrap());
                }
                Some(escape) => bytes.push(match escape {
                    'a' => 7,
                    'b' => 8,
                    't' => b'\t',
                    'n' => b'\n',
                    'v' => 11,
                    'f' => 12,
                    'r' => b'\r',
                    '"' | '\\' => escape as u8,
                    other => panic!("\\{other} in {line}"),
                }),
            }
        }
    }
    bytes
}
