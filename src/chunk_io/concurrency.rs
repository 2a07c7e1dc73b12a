//! How many connections a transfer uses: more while that makes it faster; fewer where fewer are as fast, or
//! the server asks for less. Pure: it is told the time.
//!
//! It begins with a few, and doubles them as long as the throughput grows. From then on it tries, now and
//! then, fewer or more. A trial compares the throughput of two windows of time, in which all the connections
//! that are allowed were in use: if the stream is slower than the line, there is nothing to find out.

use std::time::Duration;

use crate::model::memory::Memory;

const AT_FIRST: usize = 4;
/// A window is at least so long, and at least so many bytes a connection are moved in it: on a slow line,
/// less would tell nothing. The short one is for the beginning, when most is to be gained.
const SHORT: Window = Window { time: Duration::from_millis(150), bytes: 2 << 20 };
const LONG: Window = Window { time: Duration::from_secs(1), bytes: 4 << 20 };
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
    /// Bytes.
    moved: i64,
    measuring: Option<Measuring>,
    slowed: Option<Duration>,
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
    /// How often all connections were in use, and how often they were not.
    full: u32,
    idle: u32,
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
            moved: 0,
            measuring: None,
            slowed: None,
        }
    }

    pub fn adaptive(most: usize) -> Self {
        Concurrency { limit: AT_FIRST.min(most), adapts: most > 1, ..Self::fixed(most) }
    }

    /// How many connections may be used now, and how many at most.
    pub fn limit(&self) -> usize {
        self.limit
    }
    pub fn most(&self) -> usize {
        self.most
    }

    /// `bytes` more were moved; a negative number after a failed attempt. `in_use`: how many connections were
    /// in use; more than the limit while it comes down.
    pub fn moved(&mut self, bytes: i64, in_use: usize, now: Duration) {
        self.moved += bytes;
        if !self.adapts {
            return;
        }
        let Some(measuring) = &mut self.measuring else {
            if in_use == self.limit {
                self.measuring = Some(Measuring { begun: now, moved_before: self.moved, full: 0, idle: 0 });
            }
            return;
        };
        if in_use < self.limit {
            measuring.idle += 1;
        } else {
            measuring.full += 1;
        }
        let window = if self.is_beginning { SHORT } else { LONG };
        let (time, moved) = (now.saturating_sub(measuring.begun), self.moved - measuring.moved_before);
        if time < window.time || moved < window.bytes * self.limit as i64 {
            return;
        }
        let was_full = measuring.full > measuring.idle;
        self.measuring = None;
        if was_full {
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
                    self.limit = before.limit;
                    self.settle();
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
        self.limit = step.clamp(1, self.most);
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
        if !std::mem::take(&mut self.is_beginning) {
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The server asks for fewer requests.
    pub fn slow_down(&mut self, in_use: usize, now: Duration) {
        let is_aftermath = self.slowed.is_some_and(|slowed| now < slowed + AFTERMATH) || in_use > self.limit;
        if !self.adapts || is_aftermath {
            return;
        }
        self.limit = (self.limit / 2).max(1);
        self.slowed = Some(now);
        self.measuring = None;
        self.is_beginning = false;
        self.pause = LONGEST_PAUSE;
        self.phase = Phase::Settled(self.pause);
        self.upwards = true;
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
        /// Between two chunks of a connection.
        latency: Duration,
        /// The throughput varies by so much, up and down.
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
                latency: Duration::from_millis(20),
                noise: 0.0,
                accepted: 1000,
                random: 1,
            }
        }
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

        /// Each connection that is in use has what is left of its chunk, and when it goes on.
        fn run(&mut self, concurrency: &mut Concurrency, from: u64, seconds: u64) -> Run {
            let mut connections: Vec<(f64, Duration)> = Vec::new();
            let mut now = Duration::from_secs(from);
            let mut run = Run { limits: Vec::new(), rates: Vec::new() };
            for _ in 0..seconds {
                let mut moved_in_second = 0.0;
                let end = now + Duration::from_secs(1);
                while now < end {
                    while connections.len() < concurrency.limit() {
                        // not all at the same time
                        let left = CHUNK * (0.2 + 0.8 * self.fraction());
                        connections.push((left, now + self.latency));
                    }
                    let moving = connections.iter().filter(|(_, at)| *at <= now).count();
                    let varied = 1.0 + self.noise * (2.0 * self.fraction() - 1.0);
                    let share = (self.total / moving.max(1) as f64).min(self.each) * varied;
                    let bytes = share * STEP.as_secs_f64();
                    let in_use = connections.len();
                    let mut done = 0;
                    for (left, _) in connections.iter_mut().filter(|(_, at)| *at <= now) {
                        *left -= bytes;
                        moved_in_second += bytes;
                        concurrency.moved(bytes as i64, in_use, now);
                        done += usize::from(*left <= 0.0);
                    }
                    if in_use > self.accepted {
                        concurrency.slow_down(in_use, now);
                    }
                    connections.retain(|(left, _)| *left > 0.0);
                    for _ in 0..done {
                        if connections.len() < concurrency.limit() {
                            connections.push((CHUNK, now + self.latency.mul_f64(0.5 + self.fraction())));
                        }
                    }
                    now += STEP;
                }
                run.limits.push(concurrency.limit());
                run.rates.push(moved_in_second);
            }
            run
        }
    }

    #[test]
    fn a_line_that_limits_each_connection_is_filled_within_a_second() {
        let mut line = Line { each: 40.0 * MIB, ..Line::default() };
        let run = line.run(&mut Concurrency::adaptive(32), 0, 30);
        assert_eq!(run.limits[0], 32, "{run:?}");
        assert!(run.rate() > 0.9 * 32.0 * 40.0 * MIB * 200.0 / 220.0, "{run:?}");
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
        // 1 Gbit/s far away: each connection has 10 MiB/s, so 12 fill it
        let line = || Line {
            total: 120.0 * MIB,
            each: 10.0 * MIB,
            latency: Duration::from_millis(100),
            ..Line::default()
        };
        let run = line().run(&mut Concurrency::adaptive(32), 0, 600);
        assert!(run.rate() > 0.95 * 120.0 * MIB, "{} {run:?}", run.rate() / MIB);
        assert!((11.0..20.0).contains(&run.average()), "{} {run:?}", run.average());
        // as the throughput of real lines varies
        for random in 1..20 {
            let mut line = Line { noise: 0.8, random, ..line() };
            let run = line.run(&mut Concurrency::adaptive(32), 0, 600);
            assert!(run.rate() > 0.9 * 120.0 * MIB, "{random} {} {run:?}", run.rate() / MIB);
            assert!(run.most() <= 32);
        }
    }

    #[test]
    fn a_server_that_asks_for_less_gets_less() {
        let mut line = Line { each: 40.0 * MIB, accepted: 12, ..Line::default() };
        let mut concurrency = Concurrency::adaptive(32);
        let run = line.run(&mut concurrency, 0, 120);
        assert!(run.limits[2..].iter().filter(|limit| **limit > 12).count() <= 3, "{run:?}");
        assert!(run.average() >= 6.0, "{run:?}");
        // a burst of refusals is one
        let limit = concurrency.limit();
        let now = Duration::from_secs(200);
        (0..10).for_each(|_| concurrency.slow_down(limit, now));
        assert_eq!(concurrency.limit(), limit / 2);
        (0..20).for_each(|n| concurrency.slow_down(1, now + Duration::from_secs(n * 2)));
        assert_eq!(concurrency.limit(), 1);
    }

    #[test]
    fn it_follows_a_line_that_changes() {
        let mut concurrency = Concurrency::adaptive(32);
        let mut line = Line { total: 5.0 * MIB, ..Line::default() };
        let run = line.run(&mut concurrency, 0, 600);
        assert!(run.average() < 4.0, "{run:?}");
        let mut line = Line { each: 5.0 * MIB, ..Line::default() };
        let run = line.run(&mut concurrency, 600, 1200);
        assert_eq!(run.most(), 32, "{run:?}");
    }

    #[test]
    fn a_stream_slower_than_the_line_changes_nothing() {
        let mut concurrency = Concurrency::adaptive(32);
        for n in 0..100_000 {
            concurrency.moved(1 << 20, 1 + n % 4 / 3, Duration::from_millis(n as u64));
        }
        assert_eq!(concurrency.limit(), 4);
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
