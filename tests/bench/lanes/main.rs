//! `cargo bench-lanes`: what the key-lane executor can do in one process, without a broker.
//!
//! One part for each layer; a part is a function that returns its figures. Memory is what the allocator
//! has handed out.

mod core;
mod exec;

use clap::Parser;
use serde::Serialize;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::process::ExitCode;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Measures the key-lane executor in one process.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo bench-lanes")]
struct Cli {
    /// Print figures as JSON.
    #[arg(long)]
    json: bool,
    /// Measure only figures whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What a figure has to be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Goal {
    /// Not less than this.
    AtLeast(f64),
    /// Not more than this.
    AtMost(f64),
}

/// One measurement.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// What came out.
    pub value: f64,
    /// In what.
    pub unit: &'static str,
    /// What was wanted, if anything.
    pub goal: Option<Goal>,
    /// Whether the goal was reached.
    pub reached: Option<bool>,
}

impl Figure {
    /// A figure without a goal.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            value,
            unit,
            goal: None,
            reached: None,
        }
    }

    /// The figure with its goal.
    pub fn goal(mut self, goal: Goal) -> Self {
        self.reached = Some(match goal {
            Goal::AtLeast(least) => self.value >= least,
            Goal::AtMost(most) => self.value <= most,
        });
        self.goal = Some(goal);
        self
    }
}

/// Names a measurement and makes it.
pub type Measurement = (&'static str, fn() -> Vec<Figure>);

/// Bytes that the allocator has handed out.
pub fn heap() -> i64 {
    let stats = ALLOCATOR.stats();
    // These two include what was reallocated.
    stats.bytes_allocated as i64 - stats.bytes_deallocated as i64
}

/// Allocations made so far.
pub fn allocations() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut figures = Vec::new();
    for (name, measure) in core::MEASUREMENTS.iter().chain(exec::MEASUREMENTS) {
        if cli.only.as_deref().is_none_or(|only| name.contains(only)) {
            let begin = Instant::now();
            let measured = measure();
            if !cli.json {
                println!("{name} ({:.1} s)", begin.elapsed().as_secs_f64());
                measured.iter().for_each(print);
            }
            figures.extend(measured);
        }
    }
    if cli.json {
        println!("{}", serde_json::json!({ "figures": figures }));
    }
    let missed = figures.iter().any(|figure| figure.reached == Some(false));
    ExitCode::from(u8::from(missed))
}

fn print(figure: &Figure) {
    let goal = match figure.goal {
        Some(Goal::AtLeast(least)) => format!("at least {least}"),
        Some(Goal::AtMost(most)) => format!("at most {most}"),
        None => String::new(),
    };
    let missed = if figure.reached == Some(false) {
        "  MISSED"
    } else {
        ""
    };
    println!(
        "  {:<58} {:>14.3} {:<12} {goal}{missed}",
        figure.name, figure.value, figure.unit
    );
}
