//! The newest snapshot of a dataset, of those that can be restored.

use crate::chunk_io::each::for_each;
use crate::error::{Error, Result};
use crate::inventory::read_manifest::{Chunks, ManifestRead, read_manifest};
use crate::model::backup::Point;
use crate::model::names::Guid;
use crate::model::units::first_of;
use crate::model::utc::Utc;
use crate::s3::client::Client;
use crate::state::store::format::{Contents, Entry, State};
use crate::state::store::newest::{Created, Restorable};
use crate::state::store::selector::{SnapshotSelector, what_is_stored};
use crate::ui::Ui;

/// The snapshot that the user has selected.
pub fn selected(
    selector: &SnapshotSelector,
    client: &Client,
    contents: &Contents,
    command: &str,
    ui: &Ui,
) -> Result<Point> {
    let SnapshotSelector::Newest(dataset) = selector else { return selector.find(contents, command) };
    let created = created(client, contents, |of| of == dataset)?;
    let restorable = Restorable::of(contents, &created);
    warn_if_unsure(&restorable, &created, dataset, ui);
    let newest = restorable.newest(dataset).cloned();
    newest.ok_or_else(|| {
        Error::failed(format!("no snapshot of {dataset} that can be restored is stored"))
            .hint(what_is_stored(contents))
    })
}

/// When the snapshots were created that may be the newest of their datasets. Their manifests have it, if they
/// were not written by an older version.
pub fn created(client: &Client, contents: &Contents, is_wanted: impl Fn(&str) -> bool) -> Result<Created> {
    let restorable = Restorable::of(contents, &Created::new());
    let unsure = restorable.datasets().filter(|dataset| is_wanted(dataset)).filter_map(|dataset| {
        let snapshots = restorable.may_be_newest(dataset);
        (snapshots.len() > 1).then_some(snapshots)
    });
    let unsure: Vec<&Point> = unsure.flatten().collect();
    let read = for_each(&unsure, client.memory.jobs(), |point| creation(client, contents, point.guid))?;
    let both = unsure.iter().zip(read);
    Ok(both.filter_map(|(point, created)| Some((point.guid, created?))).collect())
}

fn creation(client: &Client, contents: &Contents, guid: Guid) -> Result<Option<Utc>> {
    let is_it = |entry: &&Entry| entry.snapshot.guid == guid && entry.state == State::Stored;
    for entry in contents.entries.iter().filter(is_it) {
        let Some(stream) = &entry.stream else { continue };
        let key = entry.first_key(&contents.prefix);
        if let ManifestRead::Found(read) = read_manifest(client, &key, stream.size, Chunks::Checked)?
            && let Some(created) = read.manifest.created
        {
            return Ok(Some(created));
        }
    }
    Ok(None)
}

/// Several may be the newest, and of one it is not known when it was created.
pub fn warn_if_unsure(restorable: &Restorable, created: &Created, dataset: &str, ui: &Ui) {
    let snapshots = restorable.may_be_newest(dataset);
    let [newest, others @ ..] = snapshots.as_slice() else { return };
    if !others.is_empty() && snapshots.iter().any(|point| !created.contains_key(&point.guid)) {
        let others: Vec<&str> = others.iter().map(|point| point.name.as_str()).collect();
        ui.warning(&format!(
            "{} is taken for the newest snapshot of {dataset}, because it was stored last; if that is wrong, name the right one: {}",
            newest.name,
            first_of(&others, 3)
        ));
    }
}
