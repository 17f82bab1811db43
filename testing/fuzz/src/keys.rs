//! Keys and ranges of the store, the names in them, and lists of hosts.

use trigger_core::identity::{Certname, EventId, GroupName, KeyPrefix, RunId, TriggerName};
use trigger_core::keyspace::{Key, Keyspace, Range};

/// A text has one reading as a key, and a key one text.
pub(crate) fn keys(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(key) = text.parse::<Key>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(range) = text.parse::<Range>() {
        assert_eq!(range.to_string().parse::<Range>().ok(), Some(range));
    }
    let keyspace = Keyspace::new("/fuzz/prefix".parse::<KeyPrefix>().expect("a prefix"));
    if let Some(key) = keyspace.parse(text) {
        assert_eq!(keyspace.key(&key), text);
    }
    let _ = keyspace.parse_range(text);
    if let Ok(certname) = text.parse::<Certname>() {
        assert!(!certname.to_string().contains('/'), "a certname is one segment of a key");
        assert!(
            !certname.to_string().starts_with('.'),
            "a certname is no hidden file and no other directory"
        );
    }
    // A list of hosts has one on each line.
    for line in text.lines() {
        if let Ok(certname) = Certname::fold_case(line.trim()) {
            let again: Certname = certname.as_str().parse().expect("a certname that was read");
            assert_eq!(again, certname);
        }
    }
    if let Ok(group) = text.parse::<GroupName>() {
        assert!(!group.to_string().contains('/'), "a group is one segment of a key");
    }
    if let Ok(trigger) = text.parse::<TriggerName>() {
        assert!(!trigger.to_string().chars().any(char::is_control), "a name of a trigger is one line");
    }
    let _ = (text.parse::<EventId>(), text.parse::<RunId>(), text.parse::<KeyPrefix>());
}
