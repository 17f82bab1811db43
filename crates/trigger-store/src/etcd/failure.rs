//! The meaning of a failed request for its caller.

use tonic::{Code, ConnectError, Status};

use crate::detail::{Detail, causes};

/// What an etcd says whose roles or users changed while a request was on its way.
const ROLES_CHANGED: &str = "revision of auth store is old";
/// What to do where an etcd permits too little.
pub(super) const ROLES_HINT: &str = "its roles do not allow this to the certname of this node's certificate: \
                                     'trigger etcd-roles' prints the users and roles that a fleet needs";

/// A request to one member failed.
#[derive(Debug, Clone)]
pub(super) enum EtcdFailure {
    /// Nothing was done, and another member may do better.
    RetryOtherMember(Detail),
    /// The request was sent, and whether it was done is not known. Another member may do better.
    Indeterminate(Detail),
    /// Nothing was done, and no member will do it before an operator mends the cluster.
    ClusterBlocked(Detail),
    /// Nothing was done, because the cluster has no room.
    Full(Detail),
    /// Nothing was done, and the same request never will be.
    Permanent(Detail),
    /// Nothing was done, because this node has no right to it.
    Denied(Detail),
    /// Nothing was done, because a role or a user changed while the request was on its way. The same request may succeed
    /// at once.
    RolesChanged(Detail),
    /// The revision to be read has been compacted.
    Compacted,
    /// An answer is larger than this client takes in one piece.
    TooLarge,
}

impl EtcdFailure {
    /// Sorts an error of the client library that arose from asking `member`. `refusal` is why the member refused the
    /// connection, if it did.
    pub(super) fn from_client(member: &str, error: etcd_client::Error, refusal: Option<String>) -> Self {
        if let Some(sentence) = refusal {
            return Self::RetryOtherMember(Detail::new(format!("{member}: {sentence}"), error));
        }
        match error {
            etcd_client::Error::GRpcStatus(status) => Self::from_status(member, status),
            // Sending into a watch stream that is closed, and what the library should not meet.
            other => Self::Indeterminate(Detail::new(format!("{member}: {other}"), other)),
        }
    }

    fn from_status(member: &str, status: Status) -> Self {
        let said = status.message();
        let sentence = format!("{member}: {said}");
        let failure: fn(Detail) -> Self = match status.code() {
            // A connection that broke while idle is dialled again for the next request.
            _ if causes(&status).any(|cause| cause.is::<ConnectError>()) => {
                return Self::RetryOtherMember(Detail::root_cause(status).of(member));
            }
            Code::ResourceExhausted if said.contains("database space exceeded") => {
                let sentence = format!(
                    "{sentence}; nothing can be written until an operator makes room: compact and \
                     defragment it, or raise --quota-backend-bytes, then run 'etcdctl alarm disarm'"
                );
                return Self::Full(Detail::new(sentence, status));
            }
            Code::OutOfRange if said.contains("compacted") => return Self::Compacted,
            Code::OutOfRange if said.contains("message length too large") => return Self::TooLarge,
            Code::InvalidArgument if said.contains("user name is empty") => {
                let sentence = format!(
                    "{member}: it asks for a user name and password, which Trigger does not give: let it \
                     authenticate by client certificate, or switch its authentication off"
                );
                return Self::ClusterBlocked(Detail::new(sentence, status));
            }
            _ if said.contains(ROLES_CHANGED) => Self::RolesChanged,
            Code::PermissionDenied => {
                return Self::Denied(Detail::new(format!("{sentence}; {ROLES_HINT}"), status));
            }
            // gRPC's own size limit, above etcd's.
            Code::ResourceExhausted if said.contains("larger than max") => Self::Permanent,
            Code::ResourceExhausted | Code::Unauthenticated | Code::DataLoss => Self::ClusterBlocked,
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::NotFound
            | Code::AlreadyExists
            | Code::Unimplemented => Self::Permanent,
            // Answered before anything is done, because we require a leader.
            Code::Unavailable if said.ends_with("no leader") => Self::RetryOtherMember,
            _ if said.starts_with("etcdserver") => Self::Indeterminate,
            _ => return Self::Indeterminate(Detail::root_cause(status).of(member)),
        };
        failure(Detail::new(sentence, status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: Code, said: &str, expected: &str) {
        let failure = EtcdFailure::from_client("m:1", Status::new(code, said).into(), None);
        let got = format!("{failure:?}");
        assert!(got.starts_with(expected), "{got} should be {expected}");
    }

    #[test]
    fn each_answer_of_etcd_is_sorted() {
        check(Code::InvalidArgument, "etcdserver: request is too large", "Permanent");
        check(Code::InvalidArgument, "etcdserver: user name is empty", "ClusterBlocked");
        check(Code::PermissionDenied, "etcdserver: permission denied", "Denied");
        check(Code::InvalidArgument, "etcdserver: revision of auth store is old", "RolesChanged");
        check(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", "Full");
        check(Code::ResourceExhausted, "etcdserver: too many requests", "ClusterBlocked");
        check(Code::ResourceExhausted, "grpc: received message larger than max (3 vs. 2)", "Permanent");
        check(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", "Compacted");
        check(Code::Unavailable, "etcdserver: no leader", "RetryOtherMember");
        check(Code::Unavailable, "etcdserver: request timed out", "Indeterminate");
        check(Code::Unavailable, "transport is closing", "Indeterminate");
        check(Code::Unknown, "raft proposal dropped", "Indeterminate");
    }
}
