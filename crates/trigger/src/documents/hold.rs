//! Nodes that are held: `trigger hold` and `trigger release`.

use serde::Serialize;
use trigger_core::identity::Certname;
use trigger_core::node::{HeldNode, HoldReport};

use super::text::{Text, Time};

/// What `trigger hold` and `trigger release` print.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct HoldOrders {
    /// The nodes that got an order.
    pub(crate) nodes: Vec<OrderedNode>,
    /// What the reader should know besides.
    pub(crate) warnings: Vec<String>,
}

/// A node that got an order.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct OrderedNode {
    /// The node.
    pub(crate) certname: Text<Certname>,
    /// The number of the order.
    pub(crate) number: u64,
    /// What the node says.
    pub(crate) state: OrderState,
    /// Until when it is held; null where it is not.
    pub(crate) until: Option<Time>,
    /// Why it is held, or why it refuses the order.
    pub(crate) reason: Option<String>,
}

/// What a node says of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) enum OrderState {
    /// It takes it, and is held now.
    Held,
    /// It takes it, and is not held now.
    Released,
    /// It does not take it.
    Refused,
    /// It has taken a later order since.
    Replaced,
    /// It has not said so yet.
    Pending,
}

/// An operator's hold of a node.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Hold {
    /// When it ends by itself.
    pub(crate) until: Time,
    /// The node that has ordered it.
    pub(crate) by: String,
    /// Why, in the words of an operator.
    pub(crate) reason: Option<String>,
}

/// An order that a node does not take.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RefusedOrder {
    /// The node that has given it.
    by: Text<Certname>,
    /// Why it does not count.
    reason: String,
}

impl OrderState {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Released => "released",
            Self::Refused => "refused",
            Self::Replaced => "replaced",
            Self::Pending => "pending",
        }
    }
}

impl OrderedNode {
    /// What a node says of the order with this number that `by` has given, by its registration.
    pub(crate) fn of(certname: &Certname, number: u64, by: &Certname, report: Option<&HoldReport>) -> Self {
        let held = report.and_then(|report| report.held.as_ref());
        let refused = report.and_then(|report| report.refused.as_ref());
        let held = held.map(|HeldNode { until, reason, .. }| (Some(Time(*until)), reason.clone()));
        let (until, why) = held.clone().unwrap_or_default();
        let accepted = report.and_then(|report| report.accepted);
        let refused = refused.filter(|refused| refused.number == number && refused.by == *by);
        let (state, until, reason) = match accepted {
            // Of two orders that were given at once, one counts.
            Some(accepted) if accepted == number && refused.is_some() => {
                (OrderState::Refused, until, refused.map(|refused| refused.reason.clone()))
            }
            Some(accepted) if accepted > number => (OrderState::Replaced, until, why),
            Some(accepted) if accepted == number && held.is_some() => (OrderState::Held, until, why),
            Some(accepted) if accepted == number => (OrderState::Released, None, None),
            _ => match refused {
                Some(refused) => (OrderState::Refused, None, Some(refused.reason.clone())),
                None => (OrderState::Pending, None, None),
            },
        };
        Self { certname: Text(certname.clone()), number, state, until, reason }
    }
}

impl Hold {
    pub(crate) fn of(HeldNode { until, by, reason }: &HeldNode) -> Self {
        Self { until: Time(*until), by: by.to_string(), reason: reason.clone() }
    }
}

impl RefusedOrder {
    /// The order that a node has refused, if that is the latest that it says.
    pub(crate) fn of(report: Option<&HoldReport>) -> Option<Self> {
        let refused = report?.refused.as_ref()?;
        Some(Self { by: Text(refused.by.clone()), reason: refused.reason.clone() })
    }
}
