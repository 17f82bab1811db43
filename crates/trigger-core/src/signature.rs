//! What a node makes of the signature of a stored value: whether it takes the value as true, refuses it, or does not know
//! yet (C13).
//!
//! The cryptography is elsewhere: what it has found out is an argument here.

use crate::delivery::DeliveryOutcome;
use crate::identity::Certname;
use crate::signer::Signer;

/// What was found out about the signature of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The value has no signature.
    Unsigned,
    /// The signature is right, and so is the certificate, if it was made with the key of one.
    Signed {
        /// The node whose certificate it is; absent for the key that the fleet shares.
        by: Option<Certname>,
        /// How it was signed.
        signer: Signer,
    },
    /// The signature is right, and the certificate was trusted and is no longer, as the sentence says. Nothing says whether
    /// the value was signed before that.
    Outdated {
        /// The node whose certificate it is.
        by: Certname,
        /// Why the certificate is not trusted any more.
        why: String,
    },
    /// This node has no means to verify such a signature; the sentence says which it would need.
    Unchecked(String),
    /// It cannot be known now whether the signature is right, and may be known later; the sentence says why.
    Unknown(String),
    /// The signature is wrong, or its certificate is not trusted; the sentence says why.
    Wrong(String),
}

/// Who may have signed a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authors {
    /// Any node that is trusted.
    Any,
    /// This node.
    Node(Certname),
    /// Either of these nodes.
    Either(Certname, Certname),
}

impl Authors {
    /// Who may have signed an outcome of `target` for an event that `origin` fired: the target; the origin where its loop
    /// guard suppressed the target; any node where a sweep expired the delivery for a silent target.
    pub fn of_outcome(outcome: &DeliveryOutcome, target: &Certname, origin: Option<&Certname>) -> Self {
        match (outcome, origin) {
            (DeliveryOutcome::Expired(_), _) => Self::Any,
            (DeliveryOutcome::Suppressed(_), Some(origin)) => Self::Either(target.clone(), origin.clone()),
            _ => Self::Node(target.clone()),
        }
    }

    fn include(&self, certname: &Certname) -> bool {
        match self {
            Self::Any => true,
            Self::Node(node) => node == certname,
            Self::Either(one, other) => one == certname || other == certname,
        }
    }
}

/// What a node makes of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It counts as true.
    Accepted {
        /// The node that has signed it, where that is known.
        by: Option<Certname>,
        /// How it was signed.
        signer: Signer,
    },
    /// Its node has signed it with a certificate that is not trusted any more, as the sentence says. It may be shown with
    /// that sentence, and decides nothing.
    Outdated {
        /// The node that has signed it.
        by: Certname,
        /// Why the certificate is not trusted any more.
        why: String,
    },
    /// It does not count, and never will; the sentence says why.
    Refused(String),
    /// It does not count yet, and is to be judged again; the sentence says why.
    Waits(String),
}

/// Judges a value. A signature that is there and wrong is refused even where none is required.
pub fn admit(is_required: bool, authors: &Authors, finding: Finding) -> Admission {
    let unsigned = Admission::Accepted { by: None, signer: Signer::Unsigned };
    match finding {
        Finding::Unsigned if is_required => Admission::Refused(
            "it is not signed, and this node requires signatures (setting require_signature)".to_owned(),
        ),
        Finding::Unchecked(why) if is_required => Admission::Refused(why),
        Finding::Unsigned | Finding::Unchecked(_) => unsigned,
        Finding::Unknown(why) => Admission::Waits(why),
        Finding::Wrong(why) => Admission::Refused(why),
        Finding::Signed { by: Some(by), .. } | Finding::Outdated { by, .. } if !authors.include(&by) => {
            Admission::Refused(format!("{by} has signed it, which is not the node that it is of"))
        }
        Finding::Signed { by, signer } => Admission::Accepted { by, signer },
        Finding::Outdated { by, why } => Admission::Outdated { by, why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::samples::event_id;

    fn node(name: &str) -> Certname {
        name.parse().unwrap()
    }

    fn signed(by: Option<&str>) -> Finding {
        Finding::Signed { by: by.map(node), signer: Signer::SharedKey }
    }

    fn name(admission: Admission) -> &'static str {
        match admission {
            Admission::Accepted { .. } => "accepted",
            Admission::Outdated { .. } => "outdated",
            Admission::Refused(_) => "refused",
            Admission::Waits(_) => "waits",
        }
    }

    /// Proves C13.
    #[test]
    fn a_value_counts_only_with_the_signature_of_its_node() {
        let (web, db) = (node("web01"), node("db01"));
        let text = || "why".to_owned();
        let cases = [
            (Finding::Unsigned, "refused", "accepted"),
            (Finding::Unchecked(text()), "refused", "accepted"),
            (Finding::Unknown(text()), "waits", "waits"),
            (Finding::Wrong(text()), "refused", "refused"),
            (signed(Some("web01")), "accepted", "accepted"),
            (signed(Some("db01")), "refused", "refused"),
            (signed(None), "accepted", "accepted"),
            (Finding::Outdated { by: web.clone(), why: text() }, "outdated", "outdated"),
            (Finding::Outdated { by: db.clone(), why: text() }, "refused", "refused"),
        ];
        for (finding, required, not_required) in cases {
            let of_web = Authors::Node(web.clone());
            assert_eq!(name(admit(true, &of_web, finding.clone())), required, "{finding:?}");
            assert_eq!(name(admit(false, &of_web, finding.clone())), not_required, "{finding:?}");
        }
        let either = Authors::Either(web, db);
        assert_eq!(name(admit(true, &either, signed(Some("db01")))), "accepted");
        assert_eq!(name(admit(true, &Authors::Any, signed(Some("lb01")))), "accepted");
    }

    #[test]
    fn an_outcome_is_its_targets_unless_the_loop_guard_or_a_sweep_has_ended_the_delivery() {
        let (target, origin) = (node("lb01"), node("web01"));
        let check = |outcome: DeliveryOutcome, expected: Authors| {
            assert_eq!(Authors::of_outcome(&outcome, &target, Some(&origin)), expected, "{outcome:?}");
        };
        check(DeliveryOutcome::Expired(None), Authors::Any);
        check(DeliveryOutcome::Suppressed(String::new()), Authors::Either(target.clone(), origin.clone()));
        check(DeliveryOutcome::Refused(String::new()), Authors::Node(target.clone()));
        check(DeliveryOutcome::Superseded(event_id(1)), Authors::Node(target.clone()));
        let unknown = Authors::of_outcome(&DeliveryOutcome::Suppressed(String::new()), &target, None);
        assert_eq!(unknown, Authors::Node(target.clone()));
    }
}
