//! Runs that fire: the last lines of a node's runs, and what their fires answered.

use serde_json::Value;

use crate::node::Node;
use crate::polling::eventually;

/// Makes each run of a node end with these lines of shell, `fire` among them.
pub fn then(node: &Node, lines: &str) {
    node.write("then", &format!("fire() {{ trigger fire --output json \"$@\" >>fired; }}\n{lines}\n"));
}

/// What the runs of a node got as answers to their fires, once there are so many.
pub fn fired(node: &Node, count: usize) -> Vec<Value> {
    eventually(&format!("{count} fires by runs of {}", node.certname()), || {
        let text = std::fs::read_to_string(node.path("fired")).unwrap_or_default();
        let fired: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if fired.len() >= count { Ok(fired) } else { Err(text) }
    })
}
