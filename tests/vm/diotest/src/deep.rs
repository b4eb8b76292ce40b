// SPDX-License-Identifier: GPL-2.0

//! A process that reads one file, with all its reads in flight at the same time: something to
//! put into a cgroup.

use crate::aio::{Engine, Queue, Start};
use crate::buffer::{BLOCK, Region};
use crate::mirrors::as_reader_of;
use crate::model::{self, Model};
use crate::read::Via;
use crate::sys;
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a [`Deep`] has told so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The longest call that submitted a read, once all are submitted. Of reads by pread(2) none.
    pub submitted: Option<Duration>,
    /// Reads that have ended, with the right bytes.
    pub ended: usize,
    /// `read_bytes` of `/proc/PID/io` that the reads made, once all have ended.
    pub read_bytes: Option<u64>,
}

/// Such a process, killed on drop. A drop waits for its reads in flight: if a cgroup holds them back,
/// lift that limit first.
pub struct Deep {
    child: Child,
    input: ChildStdin,
    seen: Arc<Mutex<Seen>>,
}

impl Deep {
    /// Starts a process that is to issue `count` reads of `len` bytes, from the beginning of the file
    /// on and again from there. It has opened the file and has all its memory.
    pub fn start(via: Via, file: &Model, count: usize, len: usize) -> Result<Self> {
        let engine = match via {
            Via::Async(engine) => engine.name(),
            _ => "pread",
        };
        // In memory, for the process to compare with.
        let wanted = std::env::temp_dir().join("diotest.wanted");
        std::fs::write(&wanted, &file.data)?;
        let mut child = Command::new("/proc/self/exe")
            .args(["deep", engine])
            .args([&file.path, &wanted])
            .args([count.to_string(), len.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("deep")?;
        let input = child.stdin.take().context("its input")?;
        let output = child.stdout.take().context("its output")?;
        let deep = Self {
            child,
            input,
            seen: Arc::default(),
        };
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line)?;
        ensure!(line == "ready\n", "deep said {line:?}");
        let seen = deep.seen.clone();
        std::thread::spawn(move || listen(output, &seen));
        Ok(deep)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it begin.
    pub fn go(&mut self) -> Result<()> {
        Ok(self.input.write_all(b"go\n")?)
    }

    /// What it has told so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().expect("nobody panics with it").clone()
    }

    /// Whether it has ended.
    pub fn is_over(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits for the end of all its reads, and returns what it has told.
    pub fn end(mut self) -> Result<Seen> {
        let status = self.child.wait()?;
        ensure!(status.success(), "deep: {status}");
        // Its last words may still be on their way.
        for _ in 0..1000 {
            if self.seen().read_bytes.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(self.seen())
    }

    /// Sends SIGKILL, and returns whether it has ended within `limit`.
    pub fn kill(&mut self, limit: Duration) -> Result<bool> {
        self.child.kill()?;
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if self.is_over()? {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(false)
    }
}

impl Drop for Deep {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Notes all that a process tells.
fn listen(output: BufReader<ChildStdout>, seen: &Mutex<Seen>) {
    for line in output.lines().map_while(Result::ok) {
        let Some((what, number)) = line.split_once(' ') else {
            continue;
        };
        let Ok(number) = number.parse() else { continue };
        let mut seen = seen.lock().expect("nobody panics with it");
        match what {
            "submitted" => seen.submitted = Some(Duration::from_micros(number)),
            "ended" => seen.ended = number as usize,
            "read_bytes" => seen.read_bytes = Some(number),
            _ => {}
        }
    }
}

fn tell(what: &str, number: u64) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what} {number}")?;
    Ok(out.flush()?)
}

/// The process.
pub fn run(arguments: &[String]) -> Result<()> {
    let [engine, path, wanted, count, len] = arguments else {
        bail!("deep needs an engine, a file, what is in it, a count and a length");
    };
    let engine = match engine.as_str() {
        "pread" => None,
        name => {
            let engine = Engine::ALL.into_iter().find(|e| e.name() == name);
            Some(engine.context("no such engine")?)
        }
    };
    let (count, len) = (count.parse()?, len.parse()?);
    let wanted = std::fs::read(wanted)?;
    ensure!(
        len > 0 && len % BLOCK == 0 && len <= wanted.len(),
        "no length: {len}"
    );
    let reads = Reads {
        direct: model::open_direct(Path::new(path))?,
        wanted,
        memory: Region::new(count * len)?,
        count,
        len,
        ended: 0,
    };
    println!("ready");
    std::io::stdout().flush()?;
    std::io::stdin().read_line(&mut String::new())?;
    let before = read_bytes()?;
    // Of the first copy, if the module is told to choose as btrfs does.
    as_reader_of(2, 0, || match engine {
        None => reads.one_by_one(),
        Some(engine) => reads.at_once(engine),
    })?;
    tell("read_bytes", read_bytes()? - before)
}

/// What this process, by its own account, has had devices read.
fn read_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|l| l.strip_prefix("read_bytes: "));
    Ok(line.context("no read_bytes")?.parse()?)
}

struct Reads {
    direct: File,
    wanted: Vec<u8>,
    /// A part for each read.
    memory: Region,
    count: usize,
    len: usize,
    ended: usize,
}

impl Reads {
    fn offset(&self, nr: usize) -> usize {
        nr % (self.wanted.len() / self.len) * self.len
    }

    fn part(&self, nr: usize) -> std::ops::Range<usize> {
        nr * self.len..(nr + 1) * self.len
    }

    fn check(&mut self, nr: usize, result: std::io::Result<usize>) -> Result<()> {
        let (offset, len) = (self.offset(nr), self.len);
        let at = || format!("offset={offset} length={len}");
        let count = result.with_context(at)?;
        ensure!(count == len, "{}: {count} bytes", at());
        let right = self.memory.part(self.part(nr)) == &self.wanted[offset..offset + len];
        ensure!(right, "{}: wrong bytes", at());
        self.ended += 1;
        Ok(())
    }

    fn one_by_one(mut self) -> Result<()> {
        for nr in 0..self.count {
            let iov = self.memory.iovec(self.part(nr));
            let fd = self.direct.as_raw_fd();
            let result = sys::pread(fd, &iov, self.offset(nr) as i64);
            self.check(nr, result)?;
            tell("ended", self.ended as u64)?;
        }
        Ok(())
    }

    fn at_once(mut self, engine: Engine) -> Result<()> {
        let mut queue = Queue::new(engine, self.count as u32)?;
        let mut longest = Duration::ZERO;
        for nr in 0..self.count {
            let iov = [self.memory.iovec(self.part(nr))];
            let start = Start {
                offset: self.offset(nr) as u64,
                iov: &iov,
                tag: nr as u64,
            };
            let begin = Instant::now();
            let started = queue.start(&self.direct, &[start])?;
            longest = longest.max(begin.elapsed());
            ensure!(started == 1, "read {nr} was not taken");
            self.some(&mut queue, 0)?;
        }
        tell("submitted", longest.as_micros() as u64)?;
        while self.ended < self.count {
            self.some(&mut queue, 1)?;
        }
        Ok(())
    }

    /// Waits for so many reads at least.
    fn some(&mut self, queue: &mut Queue, least: usize) -> Result<()> {
        let done = queue.finish(least)?;
        if done.is_empty() {
            return Ok(());
        }
        for done in done {
            self.check(done.tag as usize, done.result)?;
        }
        tell("ended", self.ended as u64)
    }
}
