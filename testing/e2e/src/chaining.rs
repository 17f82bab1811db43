//! Runs that fire: the last lines of a node's run script, and the answers that their fires got.

use serde_json::Value;

use crate::node::Node;
use crate::polling::eventually;

/// Appends lines of shell, with `fire` among them, to each run of a node.
pub fn then(node: &Node, lines: &str) {
    node.write("then", &format!("fire() {{ trigger fire --output json \"$@\" >>fired; }}\n{lines}\n"));
}

/// Returns the answers to the fires of a node's runs, once there are `count` of them.
pub fn fired(node: &Node, count: usize) -> Vec<Value> {
    eventually(&format!("{count} fires by runs of {}", node.certname()), || {
        let text = std::fs::read_to_string(node.path("fired")).unwrap_or_default();
        let fired: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if fired.len() >= count { Ok(fired) } else { Err(text) }
    })
}
