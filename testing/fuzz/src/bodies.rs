//! JSON that is sent as it is: the hub's requests and answers, and the agent's socket.

use serde::Serialize;
use serde::de::DeserializeOwned;
use trigger_node::agent_socket::{Reply, Request};
use trigger_store::hub_protocol::{
    CasReply, CasRequest, DeleteReply, DeleteRequest, ErrorReply, PutReply, PutRequest, ReadReply,
    ReadRequest, SocketRequest, StatusReply, StatusRequest, WatchMessage, WatchRequest, WhyReply, WhyRequest,
};

/// What a hub and its clients send each other.
pub(crate) fn hub(data: &[u8]) {
    stays::<PutRequest>(data);
    stays::<PutReply>(data);
    stays::<DeleteRequest>(data);
    stays::<DeleteReply>(data);
    stays::<CasRequest>(data);
    stays::<CasReply>(data);
    stays::<ReadRequest>(data);
    stays::<ReadReply>(data);
    stays::<WatchRequest>(data);
    stays::<WatchMessage>(data);
    stays::<SocketRequest>(data);
    stays::<WhyRequest>(data);
    stays::<WhyReply>(data);
    stays::<StatusRequest>(data);
    stays::<StatusReply>(data);
    stays::<ErrorReply>(data);
}

/// What a command and the agent of its node send each other.
pub(crate) fn agent_socket(data: &[u8]) {
    stays::<Request>(data);
    stays::<Reply>(data);
}

/// What was read is written in a form that is read as the same.
fn stays<T: Serialize + DeserializeOwned>(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(data) else { return };
    let written = serde_json::to_string(&value).expect("what was read can be written");
    let again: T = serde_json::from_str(&written).expect("what was written can be read");
    assert_eq!(serde_json::to_string(&again).expect("the same"), written);
}
