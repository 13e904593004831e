//! `cogo top`: what is going on, live, in a terminal.

mod frame;
mod keys;
mod panes;
mod rates;
mod sampler;
mod screen;

use std::io::{IsTerminal as _, stdin, stdout};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use cogo::bus::Signal;
use crossterm::event::EventStream;
use futures_util::StreamExt as _;

use crate::connect::Global;
use crate::exit::{Exit, Failed};
use crate::output::Output;
use crate::text::parse_duration;
use frame::Frame;
use keys::{Next, View};
use sampler::Sampler;

/// The shortest time between two looks: each is half a dozen round trips.
const FASTEST: Duration = Duration::from_millis(200);
/// The longest: a view that stands still for longer is none.
const SLOWEST: Duration = Duration::from_secs(60);

/// Watch queues, workers, circuits and the latest failures, live
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cogo top
  cogo top --every 250ms --tenant acme
  cogo top --once                       one look, as text
  cogo top --json --every 10s           one JSON object each ten seconds
  cogo top --once --json | jq .queue

Keys: Tab and 1 to 4 choose a pane, the arrows move in it, Enter shows all of a row, / filters, p pauses,
+ and - change how often it looks, ? helps, q ends. Rates are of the last minute of the log; where more happens
than can be read along, the log is sampled and the rates say so.")]
pub(crate) struct Top {
    /// How often to look
    #[arg(long, value_parser = parse_duration, default_value = "1s", value_name = "DURATION")]
    every: Duration,
    /// Only what is of this tenant: failures, rates, workers and circuits. Queues are counted for all
    #[arg(long)]
    tenant: Option<String>,
    /// Look once and end; so it is as well where the output is no terminal, but with --json
    #[arg(long)]
    once: bool,
}

impl Top {
    pub(crate) async fn run(self, global: &Global, output: Output) -> Result<Exit> {
        if !(FASTEST..=SLOWEST).contains(&self.every) {
            return Err(Failed::usage("--every: must be from 200ms to 60s").into());
        }
        let bus = global.bus().await?;
        let mut sampler = Sampler::start(bus, self.tenant.clone(), global.place()?).await?;
        if self.once || !(output.json || stdout().is_terminal() && stdin().is_terminal()) {
            let frame = sampler.look().await?;
            match output.json {
                true => output.value(&frame)?,
                false => frame.print(output)?,
            }
            return Ok(Exit::Done);
        }
        if output.json {
            return self.stream(sampler, output).await;
        }
        self.watch(sampler).await
    }

    /// One object a look, for programs.
    async fn stream(self, mut sampler: Sampler, output: Output) -> Result<Exit> {
        loop {
            output.json_line(&sampler.look().await?)?;
            tokio::time::sleep(self.every).await;
        }
    }

    async fn watch(self, mut sampler: Sampler) -> Result<Exit> {
        let mut frame = sampler.look().await?;
        let mut woken = sampler.bus().waker(Signal::Log);
        let mut view = View::new(self.every);
        // Restores the terminal when this is left, and when it panics.
        let _left = Left;
        let mut terminal = ratatui::try_init().context("taking over the terminal")?;
        let mut typed = EventStream::new();
        let mut due = Box::pin(tokio::time::sleep(self.every));
        loop {
            terminal.draw(|canvas| screen::draw(canvas, &frame, &mut view))?;
            tokio::select! {
                event = typed.next() => match event {
                    Some(event) => match view.press(&event?, &frame) {
                        Next::Go => {}
                        Next::Look => due.as_mut().reset(tokio::time::Instant::now()),
                        Next::End => return Ok(Exit::Done),
                    },
                    // Nobody is there any more.
                    None => return Ok(Exit::Done),
                },
                () = &mut due => {
                    if !view.paused {
                        frame = refreshed(frame, &mut sampler).await;
                    }
                    due.as_mut().reset(tokio::time::Instant::now() + view.every);
                }
                // What happens is seen at once, but for a flood.
                () = woken.woken(), if !view.paused => {
                    let soon = tokio::time::Instant::now() + FASTEST;
                    if due.deadline() > soon {
                        due.as_mut().reset(soon);
                    }
                }
            }
        }
    }
}

/// The next look, or the last one with what went wrong: an outage is watched, too.
async fn refreshed(last: Frame, sampler: &mut Sampler) -> Frame {
    match sampler.look().await {
        Ok(frame) => frame,
        Err(error) => Frame { problem: Some(format!("{error:#}")), ..last },
    }
}

/// Gives the terminal back when it is dropped.
struct Left;

impl Drop for Left {
    fn drop(&mut self) {
        leave();
    }
}

/// Gives the terminal back, if it was taken over; also for who ends the process while `top` still draws.
pub(crate) fn leave() {
    if crossterm::terminal::is_raw_mode_enabled().unwrap_or(false) {
        ratatui::restore();
    }
}
