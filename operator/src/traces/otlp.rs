//! Spans in the JSON of OTLP. Pure. Ids are hexadecimal, 64-bit numbers are texts, as its mapping has it.

use super::Identity;
use serde_json::{Value, json};

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    Text(String),
    Number(i64),
    Real(f64),
    Flag(bool),
}

/// Something that was said while a span ran.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// Nanoseconds since the Unix epoch.
    pub at: u64,
    pub text: String,
}

/// A part of a trace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Span {
    pub trace: [u8; 16],
    pub id: [u8; 8],
    pub parent: Option<[u8; 8]>,
    pub name: String,
    /// A request to somebody else.
    pub is_client: bool,
    pub has_failed: bool,
    /// Nanoseconds since the Unix epoch.
    pub start: u64,
    pub end: u64,
    pub fields: Vec<(&'static str, Field)>,
    pub said: Vec<Said>,
}

/// An ExportTraceServiceRequest.
pub fn request(identity: &Identity, spans: &[Span]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    json!({"resourceSpans": [{
        "resource": {"attributes": [
            text("service.name", "keylane-operator"),
            text("service.version", version),
            text("k8s.pod.name", &identity.pod),
            text("k8s.namespace.name", &identity.namespace),
        ]},
        "scopeSpans": [{
            "scope": {"name": "keylane-operator", "version": version},
            "spans": spans.iter().map(span).collect::<Vec<_>>(),
        }],
    }]})
    .to_string()
}

fn span(span: &Span) -> Value {
    let mut value = json!({
        "traceId": hex(&span.trace),
        "spanId": hex(&span.id),
        "name": span.name,
        // SPAN_KIND_INTERNAL, SPAN_KIND_CLIENT
        "kind": if span.is_client { 3 } else { 1 },
        "startTimeUnixNano": span.start.to_string(),
        "endTimeUnixNano": span.end.to_string(),
        "attributes": span.fields.iter().map(attribute).collect::<Vec<_>>(),
        "events": span.said.iter().map(said).collect::<Vec<_>>(),
    });
    if let Some(parent) = &span.parent {
        value["parentSpanId"] = Value::from(hex(parent));
    }
    if span.has_failed {
        // STATUS_CODE_ERROR
        value["status"] = json!({"code": 2});
    }
    value
}

fn attribute((key, field): &(&'static str, Field)) -> Value {
    let value = match field {
        Field::Text(text) => json!({"stringValue": text}),
        Field::Number(number) => json!({"intValue": number.to_string()}),
        Field::Real(number) => json!({"doubleValue": number}),
        Field::Flag(flag) => json!({"boolValue": flag}),
    };
    json!({"key": key, "value": value})
}

fn said(said: &Said) -> Value {
    json!({"timeUnixNano": said.at.to_string(), "name": said.text})
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_written_as_the_protocol_has_it() {
        let identity = Identity {
            pod: "operator-1".to_owned(),
            namespace: "system".to_owned(),
        };
        let one = Span {
            trace: [0xab; 16],
            id: [1; 8],
            parent: Some([2; 8]),
            name: "HTTP".to_owned(),
            is_client: true,
            has_failed: true,
            start: 1_795_671_370_496_000_001,
            end: 1_795_671_370_497_000_000,
            fields: vec![
                ("http.status_code", Field::Number(409)),
                ("http.method", Field::Text("PATCH".to_owned())),
            ],
            said: vec![Said {
                at: 7,
                text: "failed".to_owned(),
            }],
        };
        let text = request(&identity, &[one]);
        let value: Value = serde_json::from_str(&text).unwrap();
        let of = &value["resourceSpans"][0];
        assert_eq!(
            of["resource"]["attributes"][2]["value"]["stringValue"],
            "operator-1"
        );
        assert_eq!(
            of["scopeSpans"][0]["spans"][0],
            json!({
                "traceId": "ab".repeat(16), "spanId": "01".repeat(8), "parentSpanId": "02".repeat(8),
                "name": "HTTP", "kind": 3, "status": {"code": 2},
                "startTimeUnixNano": "1795671370496000001", "endTimeUnixNano": "1795671370497000000",
                "attributes": [
                    {"key": "http.status_code", "value": {"intValue": "409"}},
                    {"key": "http.method", "value": {"stringValue": "PATCH"}},
                ],
                "events": [{"timeUnixNano": "7", "name": "failed"}],
            })
        );
    }
}
