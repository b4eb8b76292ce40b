// SPDX-License-Identifier: GPL-2.0

//! A process that has many reads in flight until it is killed.

use crate::aio::{Engine, Queue, Start};
use crate::buffer::{BLOCK, Region};
use crate::env::Env;
use crate::model;
use anyhow::{Context, Result, bail, ensure};
use rand::RngExt;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Reads in flight, and most bytes of each.
pub const DEPTH: usize = 32;
const LEN: usize = 128 << 10;

/// Such a process, killed on drop.
pub struct Flood(Child);

impl Flood {
    /// Starts one, and waits until it has reads in flight.
    pub fn start(env: &Env, engine: Engine, path: &Path) -> Result<Self> {
        let seed = env.seed.to_string();
        let child = Command::new("/proc/self/exe")
            .args(["flood", engine.name()])
            .arg(path)
            .args(["--seed", &seed])
            .stdout(Stdio::piped())
            .spawn()
            .context("flood")?;
        let mut flood = Self(child);
        let output = flood.0.stdout.take().context("its output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line == "reading\n", "flood said {line:?}");
        Ok(flood)
    }

    /// Kills it and waits for its end: that of all its reads.
    pub fn kill(mut self) -> Result<()> {
        if let Some(status) = self.0.try_wait()? {
            bail!("flood ended by itself: {status}");
        }
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads a file at random, by the engine that is named first, until killed.
pub fn run(env: &Env, arguments: &[String]) -> Result<()> {
    let [engine, path] = arguments else {
        bail!("flood needs an engine and a file");
    };
    let engine = Engine::ALL.into_iter().find(|e| e.name() == engine);
    let engine = engine.context("no such engine")?;
    let direct = model::open_direct(Path::new(path))?;
    let mut flood = Reads::new(env, engine, direct)?;
    flood.more()?;
    println!("reading");
    std::io::stdout().flush()?;
    loop {
        for (_, result) in flood.some(1)? {
            result?;
        }
        flood.more()?;
    }
}

/// Reads in flight, of one file.
pub struct Reads {
    // In this order: the kernel is done before the memory goes.
    queue: Queue,
    memory: Region,
    direct: File,
    /// Where what is in flight begins, for each part of the memory.
    flights: Vec<Option<(u64, usize)>>,
    rng: rand::rngs::SmallRng,
    blocks: u64,
}

/// Where a read began and how long it was to be, and what came of it.
pub type Ended = (u64, std::io::Result<Vec<u8>>);

impl Reads {
    pub fn new(env: &Env, engine: Engine, direct: File) -> Result<Self> {
        let memory = Region::new(DEPTH * LEN)?;
        let queue = Queue::new(engine, DEPTH as u32)?;
        if engine == Engine::UringFixed {
            queue.register(memory.iovec(0..DEPTH * LEN))?;
        }
        Ok(Self {
            queue,
            memory,
            blocks: direct.metadata()?.len() / BLOCK as u64,
            direct,
            flights: vec![None; DEPTH],
            rng: env.rng(300),
        })
    }

    /// Starts reads until there are as many as may be.
    pub fn more(&mut self) -> Result<()> {
        let mut vectors = Vec::new();
        for (slot, flight) in self.flights.iter_mut().enumerate() {
            if flight.is_none() {
                let most = self.blocks.min((LEN / BLOCK) as u64);
                let count = self.rng.random_range(1..=most);
                let first = self.rng.random_range(0..=self.blocks - count);
                let (offset, len) = (first * BLOCK as u64, count as usize * BLOCK);
                *flight = Some((offset, len));
                let start = slot * LEN;
                vectors.push((slot, offset, [self.memory.iovec(start..start + len)]));
            }
        }
        let starts: Vec<_> = vectors
            .iter()
            .map(|(slot, offset, iov)| Start {
                offset: *offset,
                iov,
                tag: *slot as u64,
            })
            .collect();
        let started = match starts.is_empty() {
            true => 0,
            false => self.queue.start(&self.direct, &starts)?,
        };
        ensure!(started == starts.len(), "{started} of {}", starts.len());
        Ok(())
    }

    /// Waits for some of them: at least so many, and no more than there are.
    pub fn some(&mut self, least: usize) -> Result<Vec<Ended>> {
        let flying = self.flights.iter().flatten().count();
        let mut ended = Vec::new();
        for done in self.queue.finish(least.min(flying))? {
            let slot = done.tag as usize;
            let (offset, len) = self.flights[slot].take().context("ended twice")?;
            let start = slot * LEN;
            let bytes = |count: usize| {
                let end = start + count.min(len);
                self.memory.part(start..end).to_vec()
            };
            ended.push((offset, done.result.map(bytes)));
        }
        Ok(ended)
    }

    /// Waits for all of them, and checks that they are of a file of these bytes.
    pub fn all(&mut self, data: &[u8]) -> Result<()> {
        while self.flights.iter().any(Option::is_some) {
            for (offset, result) in self.some(1)? {
                let got = result.with_context(|| format!("offset={offset}"))?;
                let want = &data[offset as usize..][..got.len()];
                let whole = !got.is_empty() && got.len() % BLOCK == 0;
                ensure!(whole && got == want, "offset={offset}: wrong bytes");
            }
        }
        Ok(())
    }

    /// Closes the file, of which reads go on.
    pub fn close(&mut self) -> Result<()> {
        self.direct = File::open("/dev/null")?;
        Ok(())
    }
}
