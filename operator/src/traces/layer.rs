//! Collects the spans of traced rounds as `tracing` tells of them. Never waits: what cannot be taken is lost, and
//! counted.

use super::otlp::{Field, Said, Span};
use crate::metrics::Metrics;
use std::fmt::{Debug, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::Sender;
use tracing::field::Visit;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, SpanRef};

/// Traces begin at spans of this code: a request by itself is none.
pub const ROOTS: &str = "keylane_operator";
/// What one span keeps at most.
const FIELDS: usize = 32;
const SAID: usize = 16;
const LONGEST: usize = 1_024;

/// The receiver.
pub struct Traces {
    ended: Sender<Span>,
    percent: u8,
    metrics: Metrics,
}

impl Traces {
    /// Sends on the spans of so many percent of what begins.
    pub fn new(ended: Sender<Span>, percent: u8, metrics: Metrics) -> Self {
        Self {
            ended,
            percent,
            metrics,
        }
    }

    fn takes(&self) -> bool {
        rand::random_range(0..100u8) < self.percent
    }
}

impl<S> Layer<S> for Traces
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else {
            return;
        };
        let metadata = attributes.metadata();
        let known = match span.parent() {
            Some(parent) => ids(&parent).map(|(trace, parent)| (trace, Some(parent))),
            None => (metadata.target().starts_with(ROOTS) && self.takes())
                .then(|| (rand::random(), None)),
        };
        let Some((trace, parent)) = known else {
            return;
        };
        let mut new = Span {
            trace,
            id: rand::random(),
            parent,
            name: metadata.name().to_owned(),
            start: now(),
            ..Span::default()
        };
        attributes.record(&mut Fields(&mut new));
        span.extensions_mut().insert(new);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(known) = span.extensions_mut().get_mut::<Span>()
        {
            values.record(&mut Fields(known));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if *event.metadata().level() > Level::WARN {
            return;
        }
        let Some(span) = context.event_span(event) else {
            return;
        };
        if let Some(known) = span.extensions_mut().get_mut::<Span>()
            && known.said.len() < SAID
        {
            let mut text = Text(String::new());
            event.record(&mut text);
            known.said.push(Said {
                at: now(),
                text: bounded(text.0),
            });
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else {
            return;
        };
        let known = span.extensions_mut().remove::<Span>();
        if let Some(mut known) = known {
            known.end = now();
            if self.ended.try_send(known).is_err() {
                self.metrics.lost_spans(1);
            }
        }
    }
}

/// The ids of a span's trace and of itself, if it is traced.
fn ids<'a, S>(span: &SpanRef<'a, S>) -> Option<([u8; 16], [u8; 8])>
where
    S: LookupSpan<'a>,
{
    let extensions = span.extensions();
    let known = extensions.get::<Span>()?;
    Some((known.trace, known.id))
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

fn bounded(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
    }
    text
}

/// Fields of a span. Some mean more, as OpenTelemetry's own layer for `tracing` has it.
struct Fields<'s>(&'s mut Span);

impl Fields<'_> {
    fn put(&mut self, name: &'static str, value: Field) {
        match (name, &value) {
            ("otel.name", Field::Text(text)) => self.0.name.clone_from(text),
            ("otel.kind", Field::Text(text)) => self.0.is_client = text == "client",
            ("otel.status_code", Field::Text(text)) => self.0.has_failed = text == "ERROR",
            _ if self.0.fields.len() < FIELDS => self.0.fields.push((name, value)),
            _ => {}
        }
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.put(field.name(), Field::Text(bounded(value.to_owned())));
    }

    fn record_i64(&mut self, field: &tracing::field::Field, value: i64) {
        self.put(field.name(), Field::Number(value));
    }

    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.put(field.name(), Field::Number(value));
    }

    fn record_f64(&mut self, field: &tracing::field::Field, value: f64) {
        self.put(field.name(), Field::Real(value));
    }

    fn record_bool(&mut self, field: &tracing::field::Field, value: bool) {
        self.put(field.name(), Field::Flag(value));
    }

    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
        self.put(field.name(), Field::Text(bounded(format!("{value:?}"))));
    }
}

/// The sentence of an event.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
        if field.name() == "message" {
            // Writing to a String does not fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::Registry;
    use tokio::sync::mpsc::{Receiver, channel};
    use tracing::{debug_span, info, warn};
    use tracing_subscriber::layer::SubscriberExt as _;

    /// What is sent on of what happens in `work`.
    fn traced(percent: u8, room: usize, work: impl FnOnce()) -> (Vec<Span>, Metrics) {
        let (sender, mut ended): (_, Receiver<Span>) = channel(room);
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let traces = Traces::new(sender, percent, metrics.clone());
        let subscriber = tracing_subscriber::registry().with(traces);
        tracing::subscriber::with_default(subscriber, work);
        let mut spans = Vec::new();
        while let Ok(span) = ended.try_recv() {
            spans.push(span);
        }
        (spans, metrics)
    }

    fn round() {
        let round = debug_span!(
            "round",
            name = "orders",
            tries = 3,
            error = tracing::field::Empty
        );
        let _inside = round.enter();
        {
            let _request = debug_span!(target: "kube_client", "HTTP", otel.name = "get", otel.kind = "client", otel.status_code = "ERROR").entered();
            info!("not told");
            warn!("it failed {} times", 2);
        }
        round.record("error", "no answer");
    }

    #[test]
    fn a_round_is_a_trace_with_its_requests_and_what_went_wrong() {
        let (spans, _) = traced(100, 10, round);
        let [request, round] = &spans[..] else {
            panic!("{spans:?}");
        };
        assert_eq!(
            (request.trace, request.parent),
            (round.trace, Some(round.id))
        );
        assert_eq!(round.parent, None);
        assert_eq!(
            (request.name.as_str(), round.name.as_str()),
            ("get", "round")
        );
        assert!(request.is_client && request.has_failed && !round.is_client && !round.has_failed);
        assert!(round.start <= request.start && request.end <= round.end);
        let said: Vec<_> = request.said.iter().map(|said| said.text.as_str()).collect();
        assert_eq!(said, ["it failed 2 times"]);
        let text = |text: &str| Field::Text(text.to_owned());
        assert_eq!(
            round.fields,
            [
                ("name", text("orders")),
                ("tries", Field::Number(3)),
                ("error", text("no answer"))
            ]
        );
    }

    #[test]
    fn rounds_that_are_not_chosen_and_requests_by_themselves_are_no_traces() {
        assert_eq!(traced(0, 10, round).0, []);
        let by_itself = || drop(debug_span!(target: "kube_client", "HTTP").entered());
        assert_eq!(traced(100, 10, by_itself).0, []);
    }

    #[test]
    fn what_does_not_fit_is_lost_and_nobody_waits() {
        let (spans, metrics) = traced(100, 1, round);
        assert_eq!(spans.len(), 1);
        assert_eq!(metrics.spans_so_far(), (0, 1));
    }
}
