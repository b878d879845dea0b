//! `herald stream` on a terminal: what a person sees.

#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::{
    fs::File,
    io::Read as _,
    process::{Child, Stdio},
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::{
    script::{Script, connected, event, object, wait_for_close, write},
    support::server::herald,
};

/// A command on a terminal of its own, and all that it has shown.
struct Terminal {
    child: Child,
    master: File,
    shown: String,
}

impl Terminal {
    /// Starts the command with stdin, stdout and stderr on the terminal.
    fn start(args: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let size = Winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = File::options().read(true).write(true).open(name).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut command = herald();
        command.args(args).env("TERM", "xterm-256color").env_remove("NO_COLOR");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        Self { child, master: master.into(), shown: String::new() }
    }

    /// Reads until this has been shown.
    fn shows(&mut self, text: &str) {
        while !self.shown.contains(text) {
            let mut bytes = [0; 4096];
            // The other end is gone when the command has ended.
            let read = self.master.read(&mut bytes).unwrap_or(0);
            assert!(read > 0, "{text:?} was not shown, but {:?}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }

    /// Ctrl-C, as the terminal sends it.
    fn interrupt(&self) {
        let id = self.child.id().to_string();
        let sent = std::process::Command::new("kill").args(["-INT", &id]).status();
        assert!(sent.unwrap().success());
    }

    fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// One notification with everything that a person sees, then a stream that ends once and comes back.
fn server() -> Script {
    Script::start(|number, request, stream| {
        let headers = "herald-tail: 6\r\n";
        let told = event(6).replace("\"News\"", "\"NewMessage\"");
        write(stream, connected(headers) + if request.after() < 6 { &told } else { "" });
        if number == 0 {
            // Long enough a wait to be seen.
            write(stream, "retry: 1000\n\n");
        } else {
            write(stream, ": until 6\n\n");
            wait_for_close(stream);
        }
    })
}

#[test]
fn a_person_sees_lines_and_below_them_rate_lag_and_connection() {
    let server = server();
    let mut terminal =
        Terminal::start(&["stream", "--url", &server.url, "--her-id", "7", "--offset", "5"]);
    terminal.shows("NewMessage");
    terminal.shows("for 7");
    terminal.shows("not connected, trying again in");
    terminal.shows("live · ");
    terminal.shows("/s · 1 printed");
    assert!(terminal.shown.contains("\x1b["), "in colour: {:?}", terminal.shown);
    assert!(!terminal.shown.contains(&object(6)), "no JSON: {:?}", terminal.shown);
    terminal.interrupt();
    terminal.shows("1 printed, everything up to offset 6");
    assert_eq!(terminal.code(), Some(0));
}

#[test]
fn the_server_s_objects_can_be_had_on_a_terminal_too() {
    let server = server();
    let flags = ["stream", "--url", &server.url, "--her-id", "7", "--offset", "5", "--ndjson"];
    let mut terminal = Terminal::start(&[&flags[..], &["--max", "1"]].concat());
    terminal.shows("\"type\":\"NewMessage\"");
    terminal.shows("\"offset\":6}");
    assert_eq!(terminal.code(), Some(0));
}
