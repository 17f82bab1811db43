//! Stored values: envelopes and the bodies in them.

use trigger_core::cancellation::Cancellation;
use trigger_core::certificate::StoredCertificate;
use trigger_core::delivery::{Delivery, DeliveryOutcome, Members};
use trigger_core::event::Part;
use trigger_core::holds::{HoldNote, HoldOrder};
use trigger_core::node::NodeRecord;
use trigger_core::publication::Publication;
use trigger_core::run::RunResult;
use trigger_core::run::history::{FiredEvent, RunHistory};
use trigger_core::run::record::RunRecord;
use trigger_core::run_log::{LogAnswer, LogRequest};
use trigger_core::sweep::Settled;
use trigger_core::wire::{Envelope, Stored};

/// Every form that is stored in a backend or in the state directory.
pub(crate) fn values(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    stays::<Part>(text);
    stays::<Members>(text);
    stays::<Settled>(text);
    stays::<Delivery>(text);
    stays::<DeliveryOutcome>(text);
    stays::<Cancellation>(text);
    stays::<HoldOrder>(text);
    stays::<HoldNote>(text);
    stays::<NodeRecord>(text);
    stays::<RunHistory>(text);
    stays::<FiredEvent>(text);
    stays::<Publication>(text);
    stays::<RunRecord>(text);
    stays::<RunResult>(text);
    stays::<StoredCertificate>(text);
    stays::<LogRequest>(text);
    stays::<LogAnswer>(text);
}

/// What was read is written in a form that is read as the same, and an envelope keeps its body byte for byte (C15).
fn stays<T: Stored>(text: &str) {
    if let Ok(envelope) = Envelope::parse::<T>(text) {
        assert!(text.contains(envelope.body()), "a body is a part of the text");
    }
    let Ok(value) = T::from_wire(text) else { return };
    let written = value.to_wire();
    let again = T::from_wire(&written).expect("what was written can be read");
    assert_eq!(again.to_wire(), written);
}
