//! Withdraws announced removals that no host will complete.

use crate::error::{Error, Result, one_line};
use crate::model::announcement::{self, Announcement};
use crate::model::keys::{self, ObjectKind};
use crate::removal::withdraw;
use crate::s3::client::Client;
use crate::s3::failure::FailureKind;
use crate::s3::reply::Object;
use crate::state::store::format::{Contents, State};
use crate::ui::Ui;

/// This host's own removals. None of them is running while the caller holds the lock.
pub fn own_removals(client: &Client, contents: &Contents) -> Result<()> {
    for entry in contents.entries.iter().filter(|entry| entry.state == State::Removing) {
        if let Some(nonce) = entry.removal {
            withdraw(client, &keys::announcement(&contents.prefix, &entry.copy(), nonce))?;
        }
    }
    Ok(())
}

/// The removals of one host, which the user says is gone for good. Never those of all hosts: another one may
/// be running.
pub fn removals_of(host: &str, client: &Client, prefix: &str, ui: &Ui) -> Result<()> {
    let is_announcement = |object: &Object| {
        object.size > 0
            && keys::parse(prefix, &object.key).is_some_and(|p| matches!(p.kind, ObjectKind::Removing(_)))
    };
    let mut others = Vec::new();
    let mut withdrawn = 0;
    for object in client.list_objects(prefix, is_announcement)? {
        // an unreadable one is named by the end of its key
        let nonce = object.key.rsplit('-').next().unwrap_or_default().to_string();
        let announced_by = match client.get(&object.key, announcement::MAX_LEN) {
            Ok(text) => Announcement::host(&text).unwrap_or(nonce),
            Err(failure) if failure.kind == FailureKind::Final => nonce,
            Err(failure) => return Err(failure.into()),
        };
        if announced_by == host {
            withdraw(client, &object.key)?;
            ui.note(&format!("cancelled an announced removal: '{}'", object.key));
            withdrawn += 1;
        } else {
            others.push(announced_by);
        }
    }
    if withdrawn > 0 {
        return Ok(());
    }
    others.sort();
    others.dedup();
    let error = Error::failed(format!("the host '{}' has announced no removal", one_line(host)));
    Err(others.iter().fold(error, |error, other| error.hint(format!("the host '{}' has", one_line(other)))))
}
