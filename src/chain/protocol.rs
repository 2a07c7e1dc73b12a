//! The protocol for uploads and removals in a bucket that several hosts share, explored state by state over
//! the very functions that decide in the program: [`check_upload`], [`settle`], [`check_remove`] and
//! [`check_abort`].
//!
//! A step is one request, or one local commit. Every order of the steps of all hosts is tried, and at any
//! step a host may be killed; then it resumes, aborts or removes again, as a user would.
//!
//! Invariant, in every state: each backup that a host's store calls stored, and that no host was asked to
//! remove, is in the bucket, and so is a chain to it. Liveness, from every state: the hosts alone, each with
//! what is pending there, can reach a state where nothing is pending, announced or open.

use std::collections::{HashMap, HashSet, VecDeque};

use super::*;
use crate::model::backup::Link;
use crate::model::names::Guid;

/// The backups of the model: snapshot and base, 0 for none.
const LINKS: [(u64, u64); 5] = [(1, 0), (2, 1), (2, 0), (3, 2), (3, 1)];
const MOST_COPIES: usize = 8;
const NONE: u8 = 255;

/// What is left out of the protocol, to show that the exploration catches it.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Without {
    Nothing,
    /// An upload is called stored without a listing after its manifest.
    SecondLook,
    /// A removal lists before it announces.
    AnnouncingFirst,
    /// The announcement goes before the data.
    LastingAnnouncement,
    /// Only stored copies count as depending on their base.
    Dependents,
    /// An announced copy counts as a route.
    OthersAnnouncements,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Stored {
    link: u8,
    /// Its multipart upload is open.
    open: bool,
    data: bool,
    manifest: bool,
    /// A bit for each host that has announced its removal.
    announced: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Step {
    Idle,
    // an upload: of a link first, then of a copy
    Create,
    Complete,
    Manifest,
    Look,
    Commit,
    // a removal: of a stored copy, of the copy of an upload (then `pending`), or of its manifest alone
    Announce,
    ListUploads,
    ListObjects,
    /// Only if this part of the protocol is moved.
    AnnounceLate,
    Withdraw,
    DeleteManifest,
    DeleteData,
    Unmark,
    // an abort before there is a manifest
    EndUpload,
    AbortData,
    AbortUnmark,
    // `recover -m` of what is marked `removing`
    Revive,
    ReviveLook,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Why {
    Remove,
    Abort,
    TakeBack,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Host {
    /// Bits by copy.
    stored: u8,
    removing: u8,
    pending: u8,
    step: Step,
    why: Why,
    /// The copy that the step is about; for `Create` the link.
    copy: u8,
    /// The open uploads that a removal has seen.
    seen: u8,
    commands: u8,
    kills: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    copies: [Stored; MOST_COPIES],
    count: u8,
    hosts: Vec<Host>,
    /// The copies that a host was asked to remove, and whose removal was allowed.
    told: u8,
}

struct Explorer {
    without: Without,
}

fn bit(n: u8) -> u8 {
    1 << n
}

fn link_of(n: u8) -> Link {
    let (snapshot, base) = LINKS[n as usize];
    Link { snapshot: Guid::new(snapshot).expect("not zero"), base: Guid::new(base) }
}

impl World {
    fn copies(&self) -> &[Stored] {
        &self.copies[..self.count as usize]
    }

    /// What a listing shows, without the announcements of `but`, and their places in `copies`. An open upload
    /// shows only if it is in `seen`.
    fn members(&self, but: u8, seen: u8, keep: Option<u8>) -> (Vec<Member>, Vec<u8>) {
        let mut members = Vec::new();
        let mut places = Vec::new();
        for (n, copy) in (0..).zip(self.copies()) {
            if copy.data || copy.manifest || seen & bit(n) != 0 || keep == Some(n) {
                let announced = copy.announced & !but != 0;
                members.push(Member {
                    link: link_of(copy.link),
                    whole: copy.data && copy.manifest,
                    announced,
                });
                places.push(n);
            }
        }
        (members, places)
    }

    fn violation(&self) -> Option<String> {
        let (members, _) = self.members(255, 0, None);
        let reached = recoverable(&members);
        for host in &self.hosts {
            for (n, copy) in (0..).zip(self.copies()) {
                if host.stored & bit(n) == 0 || self.told & bit(n) != 0 {
                    continue;
                }
                if !(copy.data && copy.manifest) {
                    return Some(format!(
                        "copy {n} {:?} is called stored and is gone",
                        LINKS[copy.link as usize]
                    ));
                }
                if link_of(copy.link).base.is_some_and(|base| !reached.contains(&base)) {
                    return Some(format!(
                        "copy {n} {:?} is stored without a chain",
                        LINKS[copy.link as usize]
                    ));
                }
            }
        }
        None
    }

    fn is_calm(&self) -> bool {
        let idle = |h: &Host| h.step == Step::Idle && h.pending == NONE && h.removing == 0;
        self.hosts.iter().all(idle) && self.copies().iter().all(|c| !c.open && c.announced == 0)
    }
}

impl Explorer {
    fn lacks(&self, part: Without) -> bool {
        self.without == part
    }

    fn may_go(&self, world: &World, host: &Host) -> bool {
        let (mut members, places) = world.members(0, host.seen, Some(host.copy));
        if self.lacks(Without::OthersAnnouncements) {
            members.iter_mut().for_each(|member| member.announced = false);
        }
        let own = places.iter().position(|n| *n == host.copy).expect("it was kept");
        if self.lacks(Without::Dependents) {
            for (n, member) in members.iter_mut().enumerate() {
                if n != own && (!member.whole || member.announced) {
                    member.link.base = None;
                }
            }
        }
        match host.why {
            Why::Remove => check_remove(&members, own).is_ok(),
            Why::Abort | Why::TakeBack => check_abort(&members, &members, own).is_ok(),
        }
    }

    fn settle(&self, world: &World, me: u8, copy: u8) -> Settled {
        let (mut members, places) = world.members(0, 0, Some(copy));
        let own = places.iter().position(|n| *n == copy).expect("it was kept");
        members[own].announced = world.copies[copy as usize].announced & !bit(me) != 0;
        settle(&members, own)
    }

    /// All states that may follow.
    fn next(&self, world: &World) -> Vec<World> {
        let mut all = Vec::new();
        for me in 0..world.hosts.len() {
            self.next_of(world, me, &mut all);
        }
        all
    }

    fn next_of(&self, world: &World, me: usize, all: &mut Vec<World>) {
        let host = world.hosts[me];
        let mine = bit(me as u8);
        let mut push = |change: &dyn Fn(&mut World, usize)| {
            let mut next = world.clone();
            change(&mut next, me);
            all.push(next);
        };
        if host.step != Step::Idle && host.kills > 0 {
            push(&|w, me| {
                w.hosts[me].kills -= 1;
                w.hosts[me].step = Step::Idle;
                w.hosts[me].seen = 0;
            });
        }
        let copy = host.copy as usize;
        let go = |w: &mut World, me: usize, step| w.hosts[me].step = step;
        match host.step {
            Step::Idle => self.commands(world, me, all),
            Step::Create => {
                // a multipart upload, or one PutObject, before which a listing shows nothing of it
                for (open, data, then) in [(true, false, Step::Complete), (false, true, Step::Manifest)] {
                    push(&|w, me| {
                        let n = w.count;
                        w.copies[n as usize] = Stored { link: host.copy, open, data, ..Stored::default() };
                        w.count += 1;
                        (w.hosts[me].pending, w.hosts[me].copy, w.hosts[me].step) = (n, n, then);
                    });
                }
            }
            Step::Complete => push(&|w, me| {
                (w.copies[copy].open, w.copies[copy].data) = (false, true);
                go(w, me, Step::Manifest);
            }),
            Step::Manifest => {
                let next = if self.lacks(Without::SecondLook) { Step::Commit } else { Step::Look };
                push(&|w, me| {
                    w.copies[copy].manifest = true;
                    go(w, me, next);
                });
            }
            Step::Look => match self.settle(world, me as u8, host.copy) {
                Settled::Stored => push(&|w, me| go(w, me, Step::Commit)),
                Settled::BaseNotRecoverable => {
                    push(&|w, me| (w.hosts[me].step, w.hosts[me].why) = (Step::Announce, Why::TakeBack))
                }
                Settled::Undecided | Settled::NotWhole => push(&|w, me| go(w, me, Step::Idle)),
            },
            Step::Commit => push(&|w, me| {
                w.hosts[me].stored |= bit(host.copy);
                (w.hosts[me].pending, w.hosts[me].step) = (NONE, Step::Idle);
            }),
            Step::Announce => {
                let late = self.lacks(Without::AnnouncingFirst);
                push(&|w, me| {
                    if !late {
                        w.copies[copy].announced |= mine;
                    }
                    go(w, me, Step::ListUploads);
                });
            }
            Step::ListUploads => push(&|w, me| {
                w.hosts[me].seen =
                    (0..).zip(w.copies()).filter(|(_, c)| c.open).fold(0, |s, (n, _)| s | bit(n));
                go(w, me, Step::ListObjects);
            }),
            Step::ListObjects => {
                let ok = self.may_go(world, &host);
                let late = self.lacks(Without::AnnouncingFirst);
                push(&|w, me| {
                    w.hosts[me].seen = 0;
                    if ok {
                        w.told |= bit(host.copy);
                    }
                    let then = if late { Step::AnnounceLate } else { Step::DeleteManifest };
                    go(w, me, if ok { then } else { Step::Withdraw });
                });
            }
            Step::AnnounceLate => push(&|w, me| {
                w.copies[copy].announced |= mine;
                go(w, me, Step::DeleteManifest);
            }),
            Step::Withdraw => push(&|w, me| {
                let whole = w.copies[copy].data && w.copies[copy].manifest;
                let own = &mut w.hosts[me];
                own.step = Step::Idle;
                match host.why {
                    // a removal that was refused after it was done in part stays begun
                    Why::Remove if !whole => return,
                    Why::Remove => {
                        own.removing &= !bit(host.copy);
                        own.stored |= bit(host.copy);
                    }
                    Why::Abort | Why::TakeBack => {}
                }
                w.copies[copy].announced &= !mine;
            }),
            Step::DeleteManifest => {
                let early = self.lacks(Without::LastingAnnouncement);
                push(&|w, me| {
                    w.copies[copy].manifest = false;
                    if early {
                        w.copies[copy].announced &= !mine;
                    }
                    go(w, me, if host.why == Why::TakeBack { Step::Unmark } else { Step::DeleteData });
                });
            }
            Step::DeleteData => push(&|w, me| {
                w.copies[copy].data = false;
                go(w, me, Step::Unmark);
            }),
            Step::Unmark => push(&|w, me| {
                // if nothing is left of a copy, all announcements of its removal go
                let gone = host.why != Why::TakeBack;
                w.copies[copy].announced &= if gone { 0 } else { !mine };
                let own = &mut w.hosts[me];
                own.step = Step::Idle;
                own.removing &= !bit(host.copy);
                if host.why == Why::Abort {
                    own.pending = NONE;
                }
            }),
            Step::EndUpload => push(&|w, me| {
                w.copies[copy].open = false;
                go(w, me, Step::AbortData);
            }),
            Step::AbortData => push(&|w, me| {
                w.copies[copy].data = false;
                go(w, me, Step::AbortUnmark);
            }),
            Step::AbortUnmark => push(&|w, me| {
                w.copies[copy].announced &= !mine;
                (w.hosts[me].pending, w.hosts[me].step) = (NONE, Step::Idle);
            }),
            Step::Revive => push(&|w, me| {
                w.copies[copy].announced &= !mine;
                go(w, me, Step::ReviveLook);
            }),
            Step::ReviveLook => {
                let stored = self.settle(world, me as u8, host.copy) == Settled::Stored;
                push(&|w, me| {
                    if stored {
                        w.hosts[me].removing &= !bit(host.copy);
                        w.hosts[me].stored |= bit(host.copy);
                    }
                    go(w, me, Step::Idle);
                });
            }
        }
    }

    /// What a user may run when nothing is running.
    fn commands(&self, world: &World, me: usize, all: &mut Vec<World>) {
        let host = world.hosts[me];
        let mut push = |step: Step, why: Why, copy: u8, change: &dyn Fn(&mut World)| {
            let mut next = world.clone();
            let own = &mut next.hosts[me];
            (own.step, own.why, own.copy) = (step, why, copy);
            change(&mut next);
            all.push(next);
        };
        if host.pending != NONE {
            let n = host.pending;
            let copy = world.copies[n as usize];
            let unmarked = |w: &mut World| w.copies[n as usize].announced &= !bit(me as u8);
            let first = match copy {
                Stored { manifest: true, .. } => Some(Step::Look),
                Stored { data: true, .. } => Some(Step::Manifest),
                Stored { open: true, .. } => Some(Step::Complete),
                // removed by another host: it can only be aborted
                _ => None,
            };
            if let Some(first) = first {
                push(first, Why::Remove, n, &unmarked);
            }
            let first = if copy.manifest { Step::Announce } else { Step::EndUpload };
            push(first, Why::Abort, n, &|_| {});
            return;
        }
        for n in (0..world.count).filter(|n| host.removing & bit(*n) != 0) {
            let copy = world.copies[n as usize];
            let first = if copy.data || copy.manifest { Step::Announce } else { Step::Unmark };
            push(first, Why::Remove, n, &|_| {});
        }
        if host.commands == 0 {
            return;
        }
        let spend = |w: &mut World| w.hosts[me].commands -= 1;
        let (members, _) = world.members(0, 0, None);
        for link in 0..LINKS.len() as u8 {
            let known = world.copies().iter().enumerate();
            let known = known.filter(|(n, _)| host.stored & bit(*n as u8) != 0).any(|(_, c)| c.link == link);
            let to_come = world.hosts.iter().filter(|host| host.step == Step::Create).count();
            let room = world.count as usize + to_come < MOST_COPIES;
            if !known && room && check_upload(&members, link_of(link)).is_ok() {
                push(Step::Create, Why::Remove, link, &spend);
            }
        }
        for n in 0..world.count {
            if host.stored & bit(n) != 0 {
                push(Step::Announce, Why::Remove, n, &|w| {
                    spend(w);
                    w.hosts[me].stored &= !bit(n);
                    w.hosts[me].removing |= bit(n);
                });
            }
            if host.removing & bit(n) != 0 {
                push(Step::Revive, Why::Remove, n, &spend);
            }
        }
        let mut found = 0;
        for n in 0..world.count {
            let new = (host.stored | host.removing) & bit(n) == 0;
            if new
                && world.copies[n as usize].announced == 0
                && self.settle(world, me as u8, n) == Settled::Stored
            {
                found |= bit(n);
            }
        }
        if found != 0 {
            push(Step::Idle, Why::Remove, 0, &|w| {
                spend(w);
                w.hosts[me].stored |= found;
            });
        }
    }
}

/// The links that all stores have at first.
fn start(links: &[u8], hosts: usize, commands: u8, kills: u8) -> World {
    let mut copies = [Stored::default(); MOST_COPIES];
    for (copy, link) in copies.iter_mut().zip(links) {
        *copy = Stored { link: *link, data: true, manifest: true, ..Stored::default() };
    }
    let stored = (bit(links.len() as u8)) - 1;
    let host = Host {
        stored,
        removing: 0,
        pending: NONE,
        step: Step::Idle,
        why: Why::Remove,
        copy: 0,
        seen: 0,
        commands,
        kills,
    };
    World { copies, count: links.len() as u8, hosts: vec![host; hosts], told: 0 }
}

/// The number of states, or the first one that breaks the invariant. Equal hosts are interchangeable, so of
/// two states that differ only in their order one is enough.
fn explore(start: World, without: Without, limit: usize) -> Result<usize, String> {
    let explorer = Explorer { without };
    let mut seen: HashSet<World> = HashSet::new();
    let mut todo = VecDeque::from([start]);
    while let Some(world) = todo.pop_front() {
        for next in explorer.next(&world) {
            if seen.len() >= limit {
                return Ok(seen.len());
            }
            let next = in_order(next);
            if seen.contains(&next) {
                continue;
            }
            if let Some(why) = next.violation() {
                return Err(why);
            }
            seen.insert(next.clone());
            todo.push_back(next);
        }
    }
    Ok(seen.len())
}

/// The hosts in an order of their own, with their bits.
fn in_order(world: World) -> World {
    let mut order: Vec<usize> = (0..world.hosts.len()).collect();
    let key = |n: &usize| {
        let h = &world.hosts[*n];
        let marks = world.copies().iter().map(|c| c.announced >> n & 1).collect::<Vec<_>>();
        (
            h.stored,
            h.removing,
            h.pending,
            h.step as u8,
            h.why as u8,
            h.copy,
            h.seen,
            h.commands,
            h.kills,
            marks,
        )
    };
    order.sort_by_cached_key(key);
    let mut sorted = world.clone();
    sorted.hosts = order.iter().map(|n| world.hosts[*n]).collect();
    for (copy, old) in sorted.copies.iter_mut().zip(&world.copies) {
        copy.announced =
            (0..).zip(&order).fold(0, |bits, (to, from)| bits | (old.announced >> from & 1) << to);
    }
    sorted
}

/// The states from which no state is reachable in which nothing is pending: there must be none.
fn stuck(start: World) -> (usize, usize) {
    let explorer = Explorer { without: Without::Nothing };
    let mut number: HashMap<World, usize> = HashMap::from([(start.clone(), 0)]);
    let mut worlds = vec![start];
    let mut before: Vec<Vec<u32>> = vec![vec![]];
    let mut at = 0;
    while at < worlds.len() {
        for next in explorer.next(&worlds[at].clone()) {
            let next = in_order(next);
            let n = *number.entry(next.clone()).or_insert_with(|| {
                worlds.push(next);
                before.push(vec![]);
                worlds.len() - 1
            });
            before[n].push(at as u32);
        }
        at += 1;
    }
    let mut good: Vec<bool> = worlds.iter().map(World::is_calm).collect();
    let mut work: Vec<usize> = (0..worlds.len()).filter(|n| good[*n]).collect();
    while let Some(n) = work.pop() {
        for from in &before[n] {
            if !std::mem::replace(&mut good[*from as usize], true) {
                work.push(*from as usize);
            }
        }
    }
    (good.iter().filter(|good| !**good).count(), worlds.len())
}

/// Places in [`LINKS`].
const STARTS: [&[u8]; 5] = [&[0], &[0, 1], &[0, 1, 2], &[0, 1, 2, 3], &[0, 1, 3, 4]];

#[test]
fn two_hosts_with_a_kill_each_lose_nothing() {
    for links in STARTS {
        let states = explore(start(links, 2, 1, 1), Without::Nothing, usize::MAX);
        println!("{links:?}: two hosts, one command and one kill each: {states:?} states");
        assert!(states.expect("the invariant holds") > 1000);
    }
}

/// Two hosts with two commands and a kill each, three hosts with one. `make model` goes through all of the
/// states: some tens of millions, which take minutes and gigabytes. This test tries the first of them.
#[test]
fn more_hosts_and_more_commands_lose_nothing() {
    let limit = if std::env::var_os("ZFS2S3_WHOLE_MODEL").is_some() { usize::MAX } else { 60_000 };
    for (hosts, commands, kills) in [(2, 2, 1), (3, 1, 1)] {
        for links in STARTS {
            let states = explore(start(links, hosts, commands, kills), Without::Nothing, limit);
            println!(
                "{links:?}: {hosts} hosts, {commands} commands and {kills} kills each: {states:?} states"
            );
            states.expect("the invariant holds");
        }
    }
}

#[test]
fn from_every_state_the_hosts_can_finish_everything() {
    let commands = if std::env::var_os("ZFS2S3_WHOLE_MODEL").is_some() { 2 } else { 1 };
    for links in STARTS {
        let (stuck, states) = stuck(start(links, 2, commands, 1));
        println!(
            "{links:?}: two hosts, {commands} commands and one kill each: none of {states} states is stuck"
        );
        assert_eq!(stuck, 0, "of {states} states, from {links:?}");
    }
}

/// Each part of the protocol is needed.
#[test]
fn a_protocol_that_lacks_a_part_is_caught() {
    for without in [
        Without::SecondLook,
        Without::AnnouncingFirst,
        Without::LastingAnnouncement,
        Without::Dependents,
        Without::OthersAnnouncements,
    ] {
        let found = STARTS.iter().find_map(|links| {
            let violation = explore(start(links, 2, 2, 1), without, 1_000_000).err();
            violation.map(|why| (links, why))
        });
        println!("{without:?}: {found:?}");
        assert!(found.is_some(), "{without:?} is not caught");
    }
}
