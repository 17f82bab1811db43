//! The requests that read and write the store, whichever way they came. Their sender's rate has been taken into account, and
//! who it is has been found out.

use std::collections::HashSet;
use std::sync::Arc;

use axum::http::StatusCode;
use tracing::Instrument;
use trigger_core::identity::Revision;
use trigger_store::hub_protocol::{
    CasReply, CasRequest, DeleteReply, DeleteRequest, EntryForm, NewEntry, PutReply, PutRequest, ReadReply,
    ReadRequest,
};
use trigger_store::store::StoreError;

use super::caller::Caller;
use super::limits::{check_count, check_key, check_ranges, quoted};
use super::refusal::Refusal;
use super::state::ServerState;
use crate::served_store::PageRequest;

/// Writes entries and deletes keys. What is `held` is let go once that is done.
pub(super) async fn put(
    state: Arc<ServerState>,
    caller: Option<Caller>,
    PutRequest { entries, delete }: PutRequest,
    held: impl Send + 'static,
) -> Result<PutReply, Refusal> {
    check_count(entries.len() + delete.len())?;
    entries.iter().try_for_each(|entry| check_key(&entry.key))?;
    check_apart(&entries, &delete)?;
    to_its_end(async move {
        let _held = held;
        let entries: Vec<_> = entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
        let revisions = match state.check(caller.as_ref(), "put")? {
            None => replace(&state, delete, entries).await?,
            Some(check) => {
                let mut put = check.put(entries).await?;
                check.delete(&delete).await?;
                let written = replace(&state, delete, std::mem::take(&mut put.entries)).await?;
                check.stored(&put);
                put.revisions(written)
            }
        };
        Ok(PutReply { revisions: revisions.into_iter().map(|revision| revision.0).collect() })
    })
    .await
}

/// Deletes entries.
pub(super) async fn delete(
    state: &ServerState,
    caller: Option<&Caller>,
    DeleteRequest { keys }: DeleteRequest,
) -> Result<DeleteReply, Refusal> {
    check_count(keys.len())?;
    if let Some(check) = state.check(caller, "delete")? {
        check.delete(&keys).await?;
    }
    let deleted = state.store.delete_counted(keys).await?;
    Ok(DeleteReply { deleted })
}

/// Writes one entry, if what is stored is what its client has read. What is `held` is let go once it is stored.
pub(super) async fn compare_and_swap(
    state: Arc<ServerState>,
    caller: Option<Caller>,
    CasRequest { key, value, expected }: CasRequest,
    held: impl Send + 'static,
) -> Result<CasReply, Refusal> {
    check_key(&key)?;
    to_its_end(async move {
        let _held = held;
        let _guards = match state.check(caller.as_ref(), "compare_and_swap")? {
            Some(check) => check.compare_and_swap(&key, &value).await?,
            None => Vec::new(),
        };
        let outcome = state.store.compare_and_swap(&key, &value, expected.map(Revision)).await?;
        Ok(outcome.into())
    })
    .await
}

/// Reads a page of at most `max_bytes` of keys and values.
pub(super) async fn read(
    state: &ServerState,
    caller: Option<&Caller>,
    ReadRequest { ranges, from, keys_only }: ReadRequest,
    max_bytes: usize,
) -> Result<ReadReply, Refusal> {
    let mut ranges = check_ranges(ranges)?;
    if let Some(check) = state.check(caller, "read")? {
        ranges = check.read(ranges).await?;
    }
    let page = state.store.read_page(PageRequest { ranges, from, keys_only, max_bytes }).await?;
    let entries = page.entries.into_iter().map(EntryForm::from).collect();
    Ok(ReadReply { entries, next: page.next })
}

/// Completes a write although its client may go meanwhile: what was decided about it holds until it is stored, and the audit
/// names it.
async fn to_its_end<T: Send + 'static>(
    write: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::spawn(write.in_current_span()).await.unwrap_or_else(|error| {
        let (backend, detail) =
            (String::new(), format!("the hub could not complete the write: {error}").into());
        Err(StoreError::Ambiguous { backend, detail }.into())
    })
}

/// Refuses a request that writes a key and deletes it.
fn check_apart(entries: &[NewEntry], delete: &[String]) -> Result<(), Refusal> {
    let deleted: HashSet<&String> = delete.iter().collect();
    match entries.iter().find(|entry| deleted.contains(&entry.key)) {
        None => Ok(()),
        Some(entry) => {
            let sentence = format!("'{}' is to be written, and to be deleted with that", quoted(&entry.key));
            Err(Refusal::bad_request(sentence))
        }
    }
}

async fn replace(
    state: &ServerState,
    keys: Vec<String>,
    entries: Vec<(String, String)>,
) -> Result<Vec<Revision>, Refusal> {
    if !keys.is_empty() {
        return Ok(state.store.replace(keys, entries).await?);
    }
    let results = state.store.put_many(entries).await;
    if results.iter().any(Result::is_err) {
        return Err(partial_put(results));
    }
    Ok(results.into_iter().flatten().collect())
}

/// Returns the refusal of a write of which a store without transactions may have stored a part. It says that the result
/// is unknown, because the client would take any other refusal to mean that nothing was stored.
fn partial_put(results: Vec<Result<Revision, StoreError>>) -> Refusal {
    let is_partial = results.iter().any(|result| matches!(result, Ok(_) | Err(StoreError::Ambiguous { .. })));
    let Some(error) = results.into_iter().find_map(Result::err) else {
        return Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "nothing was refused");
    };
    match error {
        error @ StoreError::Ambiguous { .. } => error.into(),
        error if !is_partial => error.into(),
        StoreError::Unreachable { backend, detail }
        | StoreError::Full { backend, detail }
        | StoreError::Denied { backend, detail }
        | StoreError::Refused { backend, detail } => StoreError::Ambiguous { backend, detail }.into(),
    }
}
