//! How many connections a transfer uses: more while that makes it faster; fewer where fewer are as fast, or
//! the server asks for less. Pure: it is told the time.
//!
//! It begins with a few, and doubles them as long as the throughput grows. From then on it tries, now and
//! then, fewer or more. A trial compares the throughput of two windows of time, in which all the connections
//! that are allowed had a request: if the source or the receiver of the stream is slower than the line, there
//! is nothing to find out.

use std::time::Duration;

use crate::model::memory::Memory;

const AT_FIRST: usize = 4;
/// A window is at least so long, and at least so many bytes a connection are moved in it: on a slow line,
/// less would tell nothing. The short one is for the beginning, when most is to be gained.
const SHORT: Window = Window { time: Duration::from_millis(150), bytes: 2 << 20 };
const LONG: Window = Window { time: Duration::from_secs(1), bytes: 4 << 20 };
/// For so much of a window, all connections must have had a request.
const FULL: f64 = 0.8;
/// A line that moves nothing for so long is not measured.
const LONGEST_GAP: Duration = Duration::from_secs(10);
/// More connections must be so much faster, and fewer may be so much slower.
const GAIN: f64 = 1.1;
const LOSS: f64 = 0.98;
/// Windows between two trials. The pause doubles while the trials fail.
const FIRST_PAUSE: u32 = 4;
const LONGEST_PAUSE: u32 = 32;
/// Requests that were under way when a server asked for less may be refused, too.
const AFTERMATH: Duration = Duration::from_secs(1);

struct Window {
    time: Duration,
    bytes: i64,
}

pub struct Concurrency {
    limit: usize,
    most: usize,
    adapts: bool,
    phase: Phase,
    /// Has it not settled yet?
    is_beginning: bool,
    /// The direction of the next trial.
    upwards: bool,
    /// Windows between trials.
    pause: u32,
    /// Requests that are under way.
    requests: usize,
    /// Counts the changes of the limit.
    epoch: u32,
    /// How many of the connections that were added have not moved anything yet.
    missing: usize,
    /// How long a request took, in this epoch, until its first bytes were moved.
    latency: Duration,
    /// Bytes.
    moved: i64,
    measuring: Option<Measuring>,
    slowed: Option<Duration>,
}

/// One request of a transfer.
#[derive(Clone, Copy)]
pub struct Begun {
    epoch: u32,
    at: Duration,
}

#[derive(Clone, Copy)]
enum Phase {
    /// So many windows until the next trial.
    Settled(u32),
    /// Is the limit of now better than the one before?
    Trying(Measured),
}

#[derive(Clone, Copy)]
struct Measured {
    limit: usize,
    /// Bytes a second.
    rate: f64,
}

struct Measuring {
    begun: Duration,
    moved_before: i64,
    last: Duration,
    was_full: bool,
    /// How long all connections had a request.
    full: Duration,
}

impl Concurrency {
    /// As many as the user sets, or as many as the line needs, within the memory.
    pub fn of(memory: &Memory, chunk_size: u64) -> Self {
        let jobs = memory.jobs_for(chunk_size);
        if memory.fixed_jobs().is_some() { Self::fixed(jobs) } else { Self::adaptive(jobs) }
    }

    pub fn fixed(jobs: usize) -> Self {
        Concurrency {
            limit: jobs,
            most: jobs,
            adapts: false,
            phase: Phase::Settled(0),
            is_beginning: true,
            upwards: true,
            pause: FIRST_PAUSE,
            requests: 0,
            epoch: 0,
            missing: jobs,
            latency: Duration::ZERO,
            moved: 0,
            measuring: None,
            slowed: None,
        }
    }

    pub fn adaptive(most: usize) -> Self {
        let limit = AT_FIRST.min(most);
        Concurrency { limit, missing: limit, adapts: most > 1, ..Self::fixed(most) }
    }

    /// How many connections may be used now, and how many at most.
    pub fn limit(&self) -> usize {
        self.limit
    }
    pub fn most(&self) -> usize {
        self.most
    }

    pub fn may_begin(&self) -> bool {
        self.requests < self.limit
    }

    pub fn begin(&mut self, now: Duration) -> Begun {
        self.requests += 1;
        Begun { epoch: self.epoch, at: now }
    }

    pub fn end(&mut self) {
        self.requests -= 1;
    }

    /// A request has moved its first bytes: its connection is established.
    pub fn first_bytes(&mut self, begun: Begun, now: Duration) {
        if begun.epoch == self.epoch {
            self.missing = self.missing.saturating_sub(1);
            self.latency = self.latency.max(now.saturating_sub(begun.at));
        }
    }

    /// `bytes` more were moved; a negative number after a failed attempt.
    pub fn moved(&mut self, bytes: i64, now: Duration) {
        self.moved += bytes;
        if !self.adapts {
            return;
        }
        let gap = self.measuring.as_ref().map_or(Duration::ZERO, |it| now.saturating_sub(it.last));
        if bytes < 0 || gap > LONGEST_GAP {
            self.measuring = None;
            return;
        }
        let is_full = self.requests >= self.limit;
        let Some(measuring) = &mut self.measuring else {
            // more than the limit while it comes down
            if self.requests == self.limit && self.missing == 0 {
                let (moved_before, full) = (self.moved, Duration::ZERO);
                self.measuring =
                    Some(Measuring { begun: now, moved_before, last: now, was_full: true, full });
            }
            return;
        };
        if measuring.was_full {
            measuring.full += gap;
        }
        (measuring.last, measuring.was_full) = (now, is_full);
        let window = if self.is_beginning { SHORT } else { LONG };
        let (time, moved) = (now.saturating_sub(measuring.begun), self.moved - measuring.moved_before);
        // over a long line, new connections need some round trips until they are fast
        if time < window.time.max(self.latency * 2) || moved < window.bytes * self.limit as i64 {
            return;
        }
        let is_valid = measuring.full >= time.mul_f64(FULL);
        self.measuring = None;
        if is_valid {
            self.judge(moved as f64 / time.as_secs_f64());
        }
    }

    fn judge(&mut self, rate: f64) {
        let now = Measured { limit: self.limit, rate };
        match self.phase {
            Phase::Settled(0) => self.begin_trial(now),
            Phase::Settled(windows) => self.phase = Phase::Settled(windows - 1),
            Phase::Trying(before) => {
                let needed = before.rate * if now.limit > before.limit { GAIN } else { LOSS };
                if rate >= needed {
                    self.pause = FIRST_PAUSE;
                    self.begin_trial(now);
                } else {
                    self.set_limit(before.limit);
                    self.settle();
                    self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Takes the next step in the same direction.
    fn begin_trial(&mut self, now: Measured) {
        let step = match (self.upwards, self.is_beginning) {
            (true, true) => self.limit * 2,
            (true, false) => self.limit + self.limit.div_ceil(2),
            (false, _) => self.limit - self.limit.div_ceil(4),
        };
        self.set_limit(step.clamp(1, self.most));
        if self.limit == now.limit {
            self.settle();
        } else {
            self.phase = Phase::Trying(now);
        }
    }

    /// The next trial is in the other direction.
    fn settle(&mut self) {
        self.phase = Phase::Settled(self.pause);
        self.upwards = !self.upwards;
        self.is_beginning = false;
    }

    fn set_limit(&mut self, limit: usize) {
        self.epoch += 1;
        self.missing = limit.saturating_sub(self.limit);
        self.latency = Duration::ZERO;
        self.measuring = None;
        self.limit = limit;
    }

    /// The server asks for fewer requests.
    pub fn slow_down(&mut self, now: Duration) {
        let is_aftermath =
            self.slowed.is_some_and(|slowed| now < slowed + AFTERMATH) || self.requests > self.limit;
        if !self.adapts || is_aftermath {
            return;
        }
        self.set_limit(match self.phase {
            // it has accepted these
            Phase::Trying(before) if before.limit < self.limit => before.limit,
            _ => (self.limit / 2).max(1),
        });
        self.slowed = Some(now);
        self.settle();
        self.upwards = true;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = 1048576.0;
    const CHUNK: f64 = 8.0 * MIB;
    const STEP: Duration = Duration::from_millis(5);

    /// A line that is simulated in steps.
    struct Line {
        /// Bytes a second, of all connections and of each.
        total: f64,
        each: f64,
        /// Of a request over a connection that is there.
        round_trip: Duration,
        /// The throughput varies by so much, up and down, for half a second each.
        noise: f64,
        /// How many requests at once the server accepts.
        accepted: usize,
        random: u64,
    }

    impl Default for Line {
        fn default() -> Self {
            Line {
                total: f64::MAX,
                each: f64::MAX,
                round_trip: Duration::from_millis(20),
                noise: 0.0,
                accepted: 1000,
                random: 1,
            }
        }
    }

    /// A connection that has a request.
    struct Connection {
        begun: Begun,
        /// When its first byte is moved, and the connection's first byte was.
        from: Duration,
        established: Duration,
        left: f64,
        has_moved: bool,
    }

    /// What a simulation has shown.
    #[derive(Debug)]
    struct Run {
        /// Of each second, the limit at its end and the throughput.
        limits: Vec<usize>,
        rates: Vec<f64>,
    }

    impl Run {
        fn rate(&self) -> f64 {
            self.rates.iter().sum::<f64>() / self.rates.len() as f64
        }
        /// In the second half.
        fn most(&self) -> usize {
            self.limits[self.limits.len() / 2..].iter().copied().max().unwrap()
        }
        fn average(&self) -> f64 {
            let late = &self.limits[self.limits.len() / 2..];
            late.iter().sum::<usize>() as f64 / late.len() as f64
        }
    }

    impl Line {
        fn fraction(&mut self) -> f64 {
            self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.random >> 33) as f64 / (1u64 << 31) as f64
        }

        /// TCP, TLS, and 100-continue take five round trips, a request over a connection that is there two;
        /// and a connection doubles its rate with each round trip from 64 KiB on.
        fn run(&mut self, concurrency: &mut Concurrency, from: u64, seconds: u64) -> Run {
            let mut active: Vec<Connection> = Vec::new();
            // since when they have been established
            let mut idle: Vec<Duration> = Vec::new();
            let mut now = Duration::from_secs(from);
            let mut run = Run { limits: Vec::new(), rates: Vec::new() };
            let mut varied = 1.0;
            for _ in 0..seconds {
                let mut moved_in_second = 0.0;
                let end = now + Duration::from_secs(1);
                while now < end {
                    while concurrency.may_begin() {
                        let (trips, established) = match idle.pop() {
                            Some(established) => (2, Some(established)),
                            None => (5, None),
                        };
                        let from = now + self.round_trip * trips;
                        active.push(Connection {
                            begun: concurrency.begin(now),
                            from,
                            established: established.unwrap_or(from),
                            left: CHUNK,
                            has_moved: false,
                        });
                    }
                    if now.subsec_millis().is_multiple_of(500) {
                        varied = 1.0 + self.noise * (2.0 * self.fraction() - 1.0);
                    }
                    let moving = active.iter().filter(|it| it.from <= now).count();
                    let share = (self.total / moving.max(1) as f64).min(self.each) * varied;
                    for it in active.iter_mut().filter(|it| it.from <= now) {
                        if !std::mem::replace(&mut it.has_moved, true) {
                            concurrency.first_bytes(it.begun, now);
                        }
                        let trips = (now - it.established).as_secs_f64() / self.round_trip.as_secs_f64();
                        let slow = 65536.0 / self.round_trip.as_secs_f64() * trips.min(30.0).exp2();
                        let bytes = share.min(slow) * STEP.as_secs_f64();
                        it.left -= bytes;
                        moved_in_second += bytes;
                        concurrency.moved(bytes as i64, now);
                    }
                    if active.len() > self.accepted {
                        concurrency.slow_down(now);
                    }
                    active.retain(|it| {
                        if it.left <= 0.0 {
                            concurrency.end();
                            idle.push(it.established);
                        }
                        it.left > 0.0
                    });
                    now += STEP;
                }
                run.limits.push(concurrency.limit());
                run.rates.push(moved_in_second);
            }
            run
        }
    }

    #[test]
    fn a_line_that_limits_each_connection_is_filled_within_two_seconds() {
        let mut line = Line { each: 40.0 * MIB, ..Line::default() };
        let run = line.run(&mut Concurrency::adaptive(32), 0, 30);
        assert_eq!(run.limits[1], 32, "{run:?}");
        let best = 32.0 * CHUNK / (CHUNK / (40.0 * MIB) + 0.04);
        assert!(run.rate() > 0.9 * best, "{} of {}: {run:?}", run.rate() / MIB, best / MIB);
    }

    #[test]
    fn a_slow_line_that_one_connection_fills_gets_no_more_than_help() {
        // 10 Mbit/s
        let mut line = Line { total: 1.25e6, ..Line::default() };
        let run = line.run(&mut Concurrency::adaptive(32), 0, 3600);
        assert!(run.limits.iter().all(|limit| *limit <= 8), "{run:?}");
        assert!(run.average() < 3.0, "{} {run:?}", run.average());
        assert!(run.rate() > 0.97 * 1.25e6);
    }

    #[test]
    fn as_many_as_the_line_needs() {
        // 1 Gbit/s far away: each connection has 10 MiB/s, so 12 fill it, and some more the pauses between
        // chunks
        let line = |round_trip| Line {
            total: 120.0 * MIB,
            each: 10.0 * MIB,
            round_trip: Duration::from_millis(round_trip),
            ..Line::default()
        };
        for (round_trip, most) in [(1, 20.0), (20, 20.0), (100, 30.0), (300, 32.0)] {
            let run = line(round_trip).run(&mut Concurrency::adaptive(32), 0, 600);
            assert!(run.rate() > 0.93 * 120.0 * MIB, "{round_trip} {} {run:?}", run.rate() / MIB);
            assert!((11.0..=most).contains(&run.average()), "{round_trip} {} {run:?}", run.average());
        }
        // as the throughput of real lines varies
        for random in 1..40 {
            let mut line = Line { noise: 0.3, random, ..line(100) };
            let run = line.run(&mut Concurrency::adaptive(32), 0, 600);
            assert!(run.rate() > 0.85 * 120.0 * MIB, "{random} {} {run:?}", run.rate() / MIB);
            assert!(run.most() <= 32);
        }
    }

    #[test]
    fn a_far_line_is_not_judged_before_new_connections_are_fast() {
        // 20 MiB/s a connection, and TLS takes a second
        let mut line = Line { each: 20.0 * MIB, round_trip: Duration::from_millis(200), ..Line::default() };
        let run = line.run(&mut Concurrency::adaptive(32), 0, 60);
        assert!(run.limits[20..].iter().all(|limit| *limit >= 24), "{run:?}");
    }

    #[test]
    fn a_server_that_asks_for_less_gets_less() {
        let mut line = Line { each: 40.0 * MIB, accepted: 12, ..Line::default() };
        let mut concurrency = Concurrency::adaptive(32);
        let run = line.run(&mut concurrency, 0, 240);
        assert!(run.limits[4..].iter().filter(|limit| **limit > 12).count() <= 12, "{run:?}");
        assert!(run.average() >= 6.0, "{run:?}");
        // a burst of refusals is one
        let limit = concurrency.limit();
        let now = Duration::from_secs(300);
        (0..10).for_each(|_| concurrency.slow_down(now));
        assert!(concurrency.limit() < limit && concurrency.limit() >= limit / 2);
        (0..20).for_each(|n| {
            while concurrency.requests > concurrency.limit {
                concurrency.end();
            }
            concurrency.slow_down(now + Duration::from_secs(n * 2));
        });
        assert_eq!(concurrency.limit(), 1);
    }

    #[test]
    fn it_follows_a_line_that_changes() {
        let mut concurrency = Concurrency::adaptive(32);
        let mut line = Line { total: 5.0 * MIB, ..Line::default() };
        let run = line.run(&mut concurrency, 0, 600);
        assert!(run.average() < 4.0, "{run:?}");
        while concurrency.requests > 0 {
            concurrency.end();
        }
        let mut line = Line { each: 5.0 * MIB, ..Line::default() };
        let run = line.run(&mut concurrency, 600, 1200);
        assert!(run.average() > 24.0, "{run:?}");
    }

    #[test]
    fn a_stream_slower_than_the_line_changes_nothing() {
        let mut concurrency = Concurrency::adaptive(32);
        for n in 0..100_000 {
            let now = Duration::from_millis(n);
            let begun = concurrency.begin(now);
            concurrency.first_bytes(begun, now);
            concurrency.moved(8 << 20, now);
            // now and then all have a request
            if n % 50 != 0 {
                concurrency.end();
            } else if concurrency.requests >= 4 {
                (0..4).for_each(|_| concurrency.end());
            }
        }
        assert_eq!(concurrency.limit(), 4);
    }

    #[test]
    fn an_outage_and_a_stall_of_the_stream_are_not_measured() {
        let mut line = Line { each: 40.0 * MIB, ..Line::default() };
        let mut concurrency = Concurrency::adaptive(32);
        line.run(&mut concurrency, 0, 5);
        assert_eq!(concurrency.limit(), 32);
        for n in 0..100 {
            // 20 seconds without a byte, then a moment as before
            while concurrency.requests > 0 {
                concurrency.end();
            }
            line.run(&mut concurrency, 100 + n * 21, 1);
        }
        assert!(concurrency.limit() >= 18, "{}", concurrency.limit());
    }

    #[test]
    fn a_fixed_number_stays() {
        let mut line = Line { each: 40.0 * MIB, accepted: 5, ..Line::default() };
        let run = line.run(&mut Concurrency::fixed(7), 0, 20);
        assert!(run.limits.iter().all(|limit| *limit == 7));
        let run = line.run(&mut Concurrency::adaptive(1), 0, 20);
        assert!(run.limits.iter().all(|limit| *limit == 1));
    }
}
