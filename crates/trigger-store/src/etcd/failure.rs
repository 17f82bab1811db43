//! What a failed request means for whoever asked.

use std::error::Error;

use tonic::{Code, ConnectError, Status};

/// Why a request to one member did not succeed.
#[derive(Debug, Clone)]
pub(super) enum EtcdFailure {
    /// Nothing was done, and another member may do better.
    RetryOtherMember(String),
    /// It was asked, and what came of it is not known. Another member may do better.
    Indeterminate(String),
    /// Nothing was done, and no member will before somebody mends the cluster.
    ClusterBlocked(String),
    /// Nothing was done, and the same request never will be.
    Permanent(String),
    /// A revision that was to be read is compacted away.
    Compacted,
    /// An answer is larger than we take in one piece.
    TooLarge,
}

impl EtcdFailure {
    /// Sorts an error of the client library that arose from asking `member`.
    pub(super) fn from_client(member: &str, error: &etcd_client::Error) -> Self {
        match error {
            etcd_client::Error::GRpcStatus(status) => Self::from_status(member, status),
            // Sending into a watch stream that is closed, and what the library should not meet.
            other => Self::Indeterminate(format!("{member}: {other}")),
        }
    }

    fn from_status(member: &str, status: &Status) -> Self {
        let said = status.message();
        match status.code() {
            // A connection that broke while idle is dialled again for the next request.
            _ if causes(status).any(|cause| cause.is::<ConnectError>()) => {
                Self::RetryOtherMember(format!("{member}: {}", root_cause(status)))
            }
            Code::ResourceExhausted if said.contains("database space exceeded") => {
                Self::ClusterBlocked(format!(
                    "{member}: {said}; nothing can be written until an operator makes room: compact and \
                 defragment it, or raise --quota-backend-bytes, then run 'etcdctl alarm disarm'"
                ))
            }
            // gRPC's own size limit, above etcd's.
            Code::ResourceExhausted if said.contains("larger than max") => {
                Self::Permanent(format!("{member}: {said}"))
            }
            Code::OutOfRange if said.contains("compacted") => Self::Compacted,
            Code::OutOfRange if said.contains("message length too large") => Self::TooLarge,
            Code::InvalidArgument if said.contains("user name is empty") => Self::ClusterBlocked(format!(
                "{member}: it asks for a user name and password, which Trigger does not give: let it \
                 authenticate by client certificate, or switch its authentication off"
            )),
            Code::ResourceExhausted | Code::Unauthenticated | Code::DataLoss => {
                Self::ClusterBlocked(format!("{member}: {said}"))
            }
            Code::InvalidArgument
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::NotFound
            | Code::AlreadyExists
            | Code::Unimplemented => Self::Permanent(format!("{member}: {said}")),
            // Said before it does anything, because we require a leader.
            Code::Unavailable if said.ends_with("no leader") => {
                Self::RetryOtherMember(format!("{member}: {said}"))
            }
            _ if said.starts_with("etcdserver") => Self::Indeterminate(format!("{member}: {said}")),
            _ => Self::Indeterminate(format!("{member}: {}", root_cause(status))),
        }
    }
}

/// The innermost cause, which is the one that says something ("transport error" does not).
pub(super) fn root_cause(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'e (dyn Error + 'static)| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: Code, said: &str, expected: &str) {
        let failure = EtcdFailure::from_client("m:1", &Status::new(code, said).into());
        let got = format!("{failure:?}");
        assert!(got.starts_with(expected), "{got} should be {expected}");
    }

    #[test]
    fn each_answer_of_etcd_is_sorted() {
        check(Code::InvalidArgument, "etcdserver: request is too large", "Permanent");
        check(Code::InvalidArgument, "etcdserver: user name is empty", "ClusterBlocked");
        check(Code::PermissionDenied, "etcdserver: permission denied", "Permanent");
        check(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", "ClusterBlocked");
        check(Code::ResourceExhausted, "etcdserver: too many requests", "ClusterBlocked");
        check(Code::ResourceExhausted, "grpc: received message larger than max (3 vs. 2)", "Permanent");
        check(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", "Compacted");
        check(Code::Unavailable, "etcdserver: no leader", "RetryOtherMember");
        check(Code::Unavailable, "etcdserver: request timed out", "Indeterminate");
        check(Code::Unavailable, "transport is closing", "Indeterminate");
        check(Code::Unknown, "raft proposal dropped", "Indeterminate");
    }
}
