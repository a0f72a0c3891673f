//! The terminal while `flames top` has it: the second screen, every key at once, and all of it given back at the end.

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::style::Print;
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{execute, queue};
use std::io::{self, Read, Write};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// The terminal. When it goes, the terminal is as before.
#[derive(Debug)]
pub(super) struct Screen {
    keys: mpsc::Receiver<u8>,
    terminate: Signal,
}

const CTRL_C: u8 = 3;

impl Screen {
    pub(super) fn open() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        terminal::enable_raw_mode()?;
        let screen = Self { keys: keys(), terminate };
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// Shows as much of a text as there is room for.
    pub(super) fn show(&mut self, text: &str) -> anyhow::Result<()> {
        let (width, height) = terminal::size()?;
        let mut out = io::stdout().lock();
        queue!(out, MoveTo(0, 0))?;
        for line in cut(text, width.into(), height.into()) {
            queue!(out, Print(line), Clear(ClearType::UntilNewLine), Print("\r\n"))?;
        }
        queue!(out, Print("q quits"), Clear(ClearType::FromCursorDown))?;
        Ok(out.flush()?)
    }

    /// Waits for `q`, Ctrl-C, the end of the input or SIGTERM.
    pub(super) async fn wants_to_quit(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                key = self.keys.recv() => match key {
                    None | Some(b'q' | b'Q' | CTRL_C) => return,
                    Some(_) => {}
                },
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is left to tell when the terminal is gone.
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

/// The bytes that are typed. Its thread ends with the process: a read of the terminal cannot be cancelled.
fn keys() -> mpsc::Receiver<u8> {
    let (typed, keys) = mpsc::channel(16);
    std::thread::spawn(move || {
        for byte in io::stdin().lock().bytes() {
            let Ok(byte) = byte else { return };
            if typed.blocking_send(byte).is_err() {
                return;
            }
        }
    });
    keys
}

/// The lines that fit, with one left for the last line.
fn cut(text: &str, width: usize, height: usize) -> impl Iterator<Item = String> {
    text.lines().take(height.saturating_sub(1)).map(move |line| line.chars().take(width).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_to_the_terminal_and_never_in_the_middle_of_a_letter() {
        let lines: Vec<_> = cut("äöü\nb\nc\n", 2, 3).collect();
        assert_eq!(lines, ["äö", "b"]);
        assert_eq!(cut("a", 2, 0).count(), 0);
    }
}
