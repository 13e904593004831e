//! Which traces are recorded (`OTEL_TRACES_SAMPLER`).

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};

/// How many bits of a trace id are random in any case (W3C Trace Context Level 2, 2.2.3.3): of a UUID, which the
/// ids of messages are, the higher ones are not, so that the SDK's own sampler, which looks at 64, would record
/// either all or none of them.
const RANDOM_BITS: u32 = 56;

/// What is recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sampler {
    /// What whoever began the trace has decided, counts.
    pub(super) parent_based: bool,
    /// Which share of the traces that are begun here, from 0 to 1.
    pub(super) ratio: f64,
}

impl Sampler {
    fn takes(self, trace: TraceId) -> bool {
        let id = u128::from_be_bytes(trace.to_bytes());
        let random = id & ((1 << RANDOM_BITS) - 1);
        #[allow(clippy::cast_precision_loss)] // 53 of 56 bits are enough to tell shares apart
        let position = random as f64 / (1_u128 << RANDOM_BITS) as f64;
        position < self.ratio
    }
}

impl ShouldSample for Sampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        _name: &str,
        _kind: &SpanKind,
        _attributes: &[KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        let parent = parent.filter(|parent| parent.has_active_span());
        let span = parent.map(|parent| parent.span());
        let above = span.as_ref().map(|span| span.span_context());
        let takes = match above.filter(|above| self.parent_based && above.is_valid()) {
            Some(above) => above.is_sampled(),
            None => self.takes(trace),
        };
        SamplingResult {
            decision: if takes {
                SamplingDecision::RecordAndSample
            } else {
                SamplingDecision::Drop
            },
            attributes: Vec::new(),
            trace_state: above.map(|above| above.trace_state().clone()).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceState};

    use super::*;

    fn uuids() -> impl Iterator<Item = TraceId> {
        (0..2000).map(|_| TraceId::from_bytes(cogo::message::TraceId::new().0.into_bytes()))
    }

    fn under(sampled: bool) -> Context {
        let flags = TraceFlags::default().with_sampled(sampled);
        let (trace, span) = (TraceId::from(7_u128), SpanId::from(7_u64));
        let above = SpanContext::new(trace, span, flags, true, TraceState::default());
        Context::new().with_remote_span_context(above)
    }

    fn records(sampler: Sampler, parent: Option<&Context>) -> bool {
        let trace = TraceId::from(7_u128);
        let result = sampler.should_sample(parent, trace, "a", &SpanKind::Server, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    #[test]
    fn a_share_of_the_ids_that_messages_have_is_recorded() {
        for (ratio, least, most) in
            [(0.0, 0, 0), (0.1, 120, 290), (0.6, 1080, 1320), (1.0, 2000, 2000)]
        {
            let sampler = Sampler { parent_based: true, ratio };
            let taken = uuids().filter(|id| sampler.takes(*id)).count();
            assert!((least..=most).contains(&taken), "{taken} at {ratio}");
        }
    }

    #[test]
    fn what_the_parent_has_decided_counts_where_it_is_asked() {
        for (parent_based, ratio, parent, recorded) in [
            (true, 0.0, Some(true), true),
            (true, 1.0, Some(false), false),
            (true, 1.0, None, true),
            (false, 0.0, Some(true), false),
            (false, 1.0, Some(false), true),
        ] {
            let parent = parent.map(under);
            let sampler = Sampler { parent_based, ratio };
            assert_eq!(records(sampler, parent.as_ref()), recorded, "{sampler:?} {parent:?}");
        }
    }
}
