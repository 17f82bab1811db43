//! Values that documents carry as text.

use std::fmt;

use serde::{Serialize, Serializer};
use trigger_core::time::Timestamp;

/// A value in the spelling that it has everywhere else: on the command line, in keys, in logs.
#[derive(Debug, Clone)]
pub(crate) struct Text<T>(pub(crate) T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A list of such values.
pub(super) fn texts<'a, T: Clone + 'a>(values: impl IntoIterator<Item = &'a T>) -> Vec<Text<T>> {
    values.into_iter().cloned().map(Text).collect()
}

/// A time in UTC as RFC 3339 with milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time(pub(crate) Timestamp);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.0.as_unix_ms()).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(ms) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => f.write_str("?"),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod schema {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
    use trigger_core::delivery::DeliveryState;
    use trigger_core::identity::{Certname, Environment, EventId, GroupName, RunId, Tag, TriggerName};
    use trigger_core::run::RunOutcome;

    use super::{Text, Time};

    /// The schema of a value that is carried as text.
    trait Described {
        const NAME: &'static str;
        fn schema() -> Schema;
    }

    macro_rules! described {
        ($($type:ident: $schema:tt),* $(,)?) => {
            $(impl Described for $type {
                const NAME: &'static str = stringify!($type);
                fn schema() -> Schema {
                    json_schema!($schema)
                }
            })*
        };
    }

    described! {
        Certname: { "type": "string", "description": "A node's Puppet identity." },
        Environment: { "type": "string", "description": "The name of an environment of Puppet's." },
        EventId: { "type": "string", "format": "uuid", "description": "Identifies one event (UUIDv8, or UUIDv7 of an earlier version)." },
        GroupName: { "type": "string", "description": "The name of a group of nodes." },
        RunId: { "type": "string", "format": "uuid", "description": "Identifies one supervised Puppet process." },
        Tag: { "type": "string", "description": "A Puppet tag." },
        TriggerName: { "type": "string", "description": "The name of a trigger: the title of the resource." },
        DeliveryState: { "enum": (DeliveryState::ALL.map(DeliveryState::as_str)), "description": "The state of a delivery." },
        RunOutcome: { "enum": (RunOutcome::all().map(RunOutcome::as_str)), "description": "How a run ended." },
    }

    impl<T: Described> JsonSchema for Text<T> {
        fn schema_name() -> Cow<'static, str> {
            T::NAME.into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            T::schema()
        }
    }

    impl JsonSchema for Time {
        fn schema_name() -> Cow<'static, str> {
            "Time".into()
        }

        fn json_schema(_: &mut SchemaGenerator) -> Schema {
            json_schema!({
                "type": "string",
                "format": "date-time",
                "description": "A time in UTC as RFC 3339 with milliseconds, by the clock of the node that noted it.",
            })
        }
    }
}
