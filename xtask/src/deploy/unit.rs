//! The systemd unit: systemd's own reading of it, how much it leaves open, and whether its filter of system calls has room
//! for what the binary does.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, bail};

use super::{made, read};
use crate::process::{command, output};

const UNIT: &str = "deploy/systemd/herald.service";
/// Who the unit's user is, for `systemd-sysusers`.
const USERS: &str = "deploy/systemd/herald.conf";
/// Where the unit expects the binary, which is not installed here.
const INSTALLED: &str = "/usr/local/bin/herald";
/// In tenths. What stays open is the network, which is what it is for.
const EXPOSURE_MAX: u32 = 15;

pub(super) fn all() -> anyhow::Result<()> {
    let unit = made()?.join("herald.service");
    let text = read(UNIT)?;
    if !text.contains(&format!("ExecStart={INSTALLED} serve\n")) {
        bail!("{UNIT}: does not start {INSTALLED}");
    }
    let user = value_of(&text, "User");
    if user != value_of(&text, "Group") || !read(USERS)?.contains(&format!("\nu {user} - ")) {
        bail!("{UNIT}: User and Group are not the ones that {USERS} makes");
    }
    // Any program that is there will do: only that it is one is looked at.
    fs::write(&unit, text.replace(INSTALLED, "/bin/true")).context("could not write the unit")?;
    let mut verify = command("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(&unit);
    eprintln!("$ systemd-analyze verify");
    let judged = verify.output().context("could not start systemd-analyze")?;
    // A key that it does not know is only a line to systemd.
    if !judged.status.success() || !judged.stderr.is_empty() {
        bail!("{UNIT}: {}", String::from_utf8_lossy(&judged.stderr));
    }
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    eprintln!("$ systemd-analyze security {threshold}");
    let mut security = command("systemd-analyze");
    security.args(["security", "--offline=true", "--no-pager", &threshold]).arg(&unit);
    let judged = security.output().context("could not start systemd-analyze")?;
    let table = String::from_utf8_lossy(&judged.stdout);
    let outcome = table.lines().rfind(|line| !line.is_empty()).unwrap_or_default();
    if !judged.status.success() {
        let open: Vec<&str> = table.lines().filter(|line| line.starts_with('✗')).collect();
        bail!("{UNIT}: {outcome}\n{}", open.join("\n"));
    }
    eprintln!("    {outcome}");
    Ok(())
}

/// Whether the unit lets through every system call of a whole life of the server, from an `strace`.
pub(super) fn allows(trace: &str) -> anyhow::Result<()> {
    let allowed = allowed(&read(UNIT)?, &|group| {
        output(command("systemd-analyze").args(["syscall-filter", "--no-pager", group]))
    })?;
    let trace = of_server(trace);
    let made = calls(trace);
    if made.is_empty() {
        bail!("the server was not traced");
    }
    let refused: Vec<_> = made.difference(&allowed).map(String::as_str).collect();
    if !refused.is_empty() {
        bail!("{UNIT}: SystemCallFilter refuses {}", refused.join(", "));
    }
    let unit = read(UNIT)?;
    let families = value_of(&unit, "RestrictAddressFamilies");
    let foreign = trace.split("socket(").skip(1).filter_map(|behind| behind.split(',').next());
    let foreign: BTreeSet<&str> =
        foreign.filter(|family| !families.split(' ').any(|allowed| allowed == *family)).collect();
    if !foreign.is_empty() {
        bail!("{UNIT}: RestrictAddressFamilies refuses {foreign:?}");
    }
    if value_of(&unit, "MemoryDenyWriteExecute") == "yes" && trace.contains("PROT_EXEC") {
        bail!("{UNIT}: MemoryDenyWriteExecute refuses memory that the server runs code from");
    }
    eprintln!("    the unit's filter lets through all of {} system calls", made.len());
    Ok(())
}

fn value_of<'a>(unit: &'a str, key: &str) -> &'a str {
    let values = unit.lines().filter_map(|line| line.split_once('='));
    values.into_iter().find(|(name, _)| *name == key).map_or("", |(_, value)| value)
}

/// What the lines `SystemCallFilter=` leave: the first one allows, those with `~` take away.
fn allowed(
    unit: &str,
    members: &impl Fn(&str) -> anyhow::Result<String>,
) -> anyhow::Result<BTreeSet<String>> {
    let mut allowed = BTreeSet::new();
    for filter in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (takes_away, names) = match filter.strip_prefix('~') {
            Some(names) => (true, names),
            None => (false, filter),
        };
        for name in names.split_whitespace() {
            let named = expand(name, members)?;
            if takes_away {
                allowed.retain(|call| !named.contains(call));
            } else {
                allowed.extend(named);
            }
        }
    }
    Ok(allowed)
}

/// A system call, or all that are in a group and in the groups that it names.
fn expand(
    name: &str,
    members: &impl Fn(&str) -> anyhow::Result<String>,
) -> anyhow::Result<BTreeSet<String>> {
    if !name.starts_with('@') {
        return Ok(BTreeSet::from([name.to_owned()]));
    }
    let mut expanded = BTreeSet::new();
    let listed = members(name)?;
    // The group's own name comes first, not indented.
    let inside = listed.lines().filter(|line| line.starts_with(' ')).map(str::trim);
    for member in inside.filter(|member| !member.starts_with('#')) {
        expanded.extend(expand(member, members)?);
    }
    Ok(expanded)
}

/// The part of a trace that is the server's, and not of what started it.
fn of_server(trace: &str) -> &str {
    let from = trace.find("execve(\"/herald\"").unwrap_or(trace.len());
    &trace[from..]
}

/// The calls of a trace: `17 futex(0x…`. One that was resumed has been seen before.
fn calls(trace: &str) -> BTreeSet<String> {
    let names = trace.lines().filter_map(|line| {
        let call = line.trim_start_matches(|byte: char| byte.is_ascii_digit() || byte == ' ');
        let (name, _) = call.split_once('(')?;
        let is_name = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        is_name.then(|| name.to_owned())
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(group: &str) -> anyhow::Result<String> {
        Ok(match group {
            "@all" => "@all\n    # All\n    @some\n    write\n",
            "@some" => "@some\n    # Some\n    read\n    mount\n",
            _ => bail!("no {group}"),
        }
        .to_owned())
    }

    #[test]
    fn a_filter_is_what_it_allows_less_what_it_takes_away() {
        let unit =
            "SystemCallFilter=@all open\nSystemCallFilter=~mount\nSystemCallErrorNumber=EPERM\n";
        let allowed = allowed(unit, &members).unwrap();
        assert_eq!(allowed.iter().collect::<Vec<_>>(), ["open", "read", "write"]);
    }

    #[test]
    fn calls_count_from_when_the_server_runs() {
        let trace = "7 chroot(\"/x\") = 0\n7 execve(\"/herald\", [...]) = 0\n\
                     8 pread64(3 <unfinished ...>\n7 <... pread64 resumed>) = 1\n8 +++ exited with 0 +++\n\
                     7 --- SIGTERM {si_signo=SIGTERM} ---\n";
        assert_eq!(calls(of_server(trace)).iter().collect::<Vec<_>>(), ["execve", "pread64"]);
        assert_eq!(of_server("7 read(0) = 1\n"), "");
    }
}
