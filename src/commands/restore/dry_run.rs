//! What `restore -n` shows. Pure.

use crate::model::archive::{Access, Archive};
use crate::model::units::{count, human_size};
use crate::restore::Receives;
use crate::restore::target::Target;
use crate::state::store::format::{Contents, Entry};

pub fn text(contents: &Contents, plan: &Receives, target: &str) -> String {
    let Receives { onto, resumed, steps, .. } = plan;
    let describe_target = match onto {
        Target::New => "a new dataset".to_string(),
        Target::Has { snapshots, .. } => {
            let base = onto.base_name().unwrap_or("no snapshot");
            match snapshots.len().saturating_sub(1) as u64 {
                0 => format!("which has {base}"),
                others => format!("which has {base} and {}", count(others, "other snapshot")),
            }
        }
    };
    let line = |verb: &str, entry: &Entry, bytes: u64| {
        let class = entry.stream.as_ref().map_or("-", |stream| stream.storage_class.as_str());
        let clone = if *onto == Target::New && entry.backup().is_clone() { "  as a clone" } else { "" };
        format!("  {verb}  {}  {bytes} bytes  {class}{clone}\n", entry.backup().describe())
    };
    let mut total = 0;
    let mut lines = String::new();
    if let Some(resumed) = resumed {
        total += resumed.remaining();
        lines += &line("resume ", resumed.entry, total);
    }
    for step in steps {
        total += step.bytes;
        lines += &line("receive", &contents.entries[step.place], step.bytes);
        for object in step.survey.archived() {
            let state = if matches!(object.access, Access::Thawing(_)) { "thawing" } else { "archived" };
            let class = object.access.archive().map_or("-", Archive::class);
            lines += &format!("    {state}  {class}  {} bytes  {}\n", object.bytes, object.key);
        }
    }
    let backups = count(steps.len() as u64 + u64::from(resumed.is_some()), "backup");
    format!(
        "would restore into {target}, {describe_target}\n{lines}  total    {total} bytes ({}), {backups}\n",
        human_size(total)
    )
}
