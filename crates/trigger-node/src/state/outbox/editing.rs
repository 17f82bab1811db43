//! What an operator does to events in the outbox: gives them another address, or drops them.

use std::path::Path;

use trigger_core::identity::EventId;
use trigger_core::publication::Publication;
use trigger_core::time::Timestamp;
use trigger_core::wire::Stored;

use super::{Outbox, Taken, expiry, reason_path};
use crate::file_error::FileError;
use crate::host::Host;
use crate::state::{at, read_if_present};

/// What became of an operator's change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edited {
    /// It was made, durably.
    Done,
    /// Another process publishes the event right now.
    Busy,
    /// The outbox has no such event.
    Absent,
    /// The event cannot be published at any address, for this reason.
    Refused(String),
}

impl<H: Host> Outbox<H> {
    /// Changes the address of an event that waits or is quarantined, and lets it wait again.
    ///
    /// # Errors
    /// A [`FileError`] if a file cannot be read, written or removed. The event is then still where it was.
    pub fn readdress(
        &self,
        event: EventId,
        now: Timestamp,
        change: impl FnOnce(&mut Publication),
    ) -> Result<Edited, FileError> {
        let name = format!("{event}.json");
        let path = self.dir.join(&name);
        if self.host.is_file(&path) {
            return match self.take(&path, now)? {
                Taken::Busy => Ok(Edited::Busy),
                Taken::Quarantined(aside) => Ok(Edited::Refused(aside.reason)),
                Taken::Event(mut publication, _lock) => {
                    change(&mut publication);
                    // The file takes the place of the old one, whose lock is held until then.
                    self.store(&publication)?;
                    self.forget_try(event);
                    Ok(Edited::Done)
                }
            };
        }
        let aside = self.aside.join(&name);
        let Some(text) = read_if_present(&self.host, &aside)? else { return Ok(Edited::Absent) };
        let mut publication = match Publication::from_wire(&text) {
            Ok(publication) if publication.event.is_expired(now) => {
                return Ok(Edited::Refused(expiry(&publication.event, now)));
            }
            Ok(publication) => publication,
            Err(error) => return Ok(Edited::Refused(error.to_string())),
        };
        change(&mut publication);
        self.store(&publication)?;
        self.remove_aside(&aside)?;
        Ok(Edited::Done)
    }

    /// Removes an event that waits or is quarantined.
    ///
    /// # Errors
    /// A [`FileError`] if its file cannot be removed.
    pub fn drop_event(&self, event: EventId, now: Timestamp) -> Result<Edited, FileError> {
        let name = format!("{event}.json");
        let path = self.dir.join(&name);
        if self.host.is_file(&path) {
            match self.take(&path, now)? {
                Taken::Busy => return Ok(Edited::Busy),
                Taken::Event(_, spooled) => {
                    spooled.committed()?;
                    self.forget_try(event);
                    return Ok(Edited::Done);
                }
                Taken::Quarantined(_) => {}
            }
        }
        let aside = self.aside.join(&name);
        if !self.host.is_file(&aside) {
            return Ok(Edited::Absent);
        }
        self.remove_aside(&aside).map(|()| Edited::Done)
    }

    /// Removes a quarantined file and then its reason.
    fn remove_aside(&self, aside: &Path) -> Result<(), FileError> {
        self.host.remove_file(aside).map_err(at("remove", aside))?;
        let _ = self.host.remove_file(&reason_path(aside));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, outbox, publication};
    use super::*;

    fn addresses(outbox: &Outbox) -> Vec<String> {
        let files = outbox.waiting().unwrap();
        let read = |path| std::fs::read_to_string(path).unwrap();
        files.iter().map(|path| Publication::from_wire(&read(path)).unwrap().backend).collect()
    }

    #[test]
    fn an_event_gets_another_address_unless_it_is_being_published() {
        let (_dir, outbox) = outbox();
        let publication = publication();
        let id = publication.event.id;
        let change = |publication: &mut Publication| publication.backend = "etcd://new:1".to_owned();
        assert_eq!(outbox.readdress(id, NOW, change).unwrap(), Edited::Absent);
        let publishing = outbox.store(&publication).unwrap();
        assert_eq!(outbox.readdress(id, NOW, change).unwrap(), Edited::Busy);
        assert_eq!(outbox.drop_event(id, NOW).unwrap(), Edited::Busy);
        drop(publishing);
        assert_eq!(outbox.readdress(id, NOW, change).unwrap(), Edited::Done);
        assert_eq!(addresses(&outbox), ["etcd://new:1"]);
        assert_eq!(outbox.drop_event(id, NOW).unwrap(), Edited::Done);
        assert_eq!(outbox.drop_event(id, NOW).unwrap(), Edited::Absent);
    }

    #[test]
    fn a_quarantined_event_waits_again_unless_it_has_expired() {
        let (_dir, outbox) = outbox();
        let publication = publication();
        let id = publication.event.id;
        let change = |publication: &mut Publication| publication.backend = "etcd://new:1".to_owned();
        outbox.store(&publication).unwrap().quarantine("it was refused").unwrap();
        let late = NOW.plus(std::time::Duration::from_secs(8 * 24 * 3600));
        assert_eq!(
            outbox.readdress(id, late, change).unwrap(),
            Edited::Refused(expiry(&publication.event, late))
        );
        assert_eq!(outbox.list_quarantined().unwrap().len(), 1);
        assert_eq!(outbox.readdress(id, NOW, change).unwrap(), Edited::Done);
        assert_eq!(addresses(&outbox), ["etcd://new:1"]);
        assert_eq!(outbox.list_quarantined().unwrap(), []);
        outbox.store(&publication).unwrap().quarantine("it was refused").unwrap();
        assert_eq!(outbox.drop_event(id, NOW).unwrap(), Edited::Done);
        assert_eq!(outbox.list_quarantined().unwrap(), []);
    }
}
