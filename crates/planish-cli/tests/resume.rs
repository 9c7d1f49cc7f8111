//! `--resume`: conversions that are killed at random points or run out of disk go on, and end with the bytes of a run in one go.

#![cfg(unix)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use planish_format::FloatType;
use serde_json::json;
use support::{Plain, Scratch};

/// Twelve layers: each takes some milliseconds.
fn large(scratch: &Scratch, name: &str) {
    let tensors: Vec<Plain> = (0..12)
        .map(|layer| Plain {
            name: format!("model.layers.{layer}.mlp.down_proj.weight"),
            shape: vec![512, 1024],
            values: (0..512 * 1024)
                .map(|index| ((index + layer) % 1009) as f32 / 1009.0)
                .collect(),
        })
        .collect();
    scratch.write(name, &json!({"model_type": "llama"}), FloatType::F32, &tensors);
}

/// Names and contents of the files of a folder.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|item| item.unwrap())
        .map(|item| {
            (
                item.file_name().into_string().unwrap(),
                std::fs::read(item.path()).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

/// The unfinished folders.
fn unfinished(scratch: &Scratch) -> Vec<PathBuf> {
    let names = scratch.names().into_iter().filter(|name| name.starts_with(".out"));
    names.map(|name| scratch.path(&name)).collect()
}

/// Tensors that the journals of unfinished folders tell.
fn whole(scratch: &Scratch) -> usize {
    let lines = |folder: &PathBuf| {
        std::fs::read(folder.join(".journal")).map_or(0, |text| {
            text.iter().filter(|byte| **byte == b'\n').count().saturating_sub(1)
        })
    };
    unfinished(scratch).iter().map(lines).sum()
}

/// Starts a run and ends it with a signal as soon as `tensors` are whole and some time is over; whether it got so far.
fn interrupted(scratch: &Scratch, arguments: &[&str], signal: &str, tensors: usize, then: Duration) -> bool {
    let mut command = scratch.command(arguments);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while whole(scratch) < tensors && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not begin");
        std::thread::sleep(Duration::from_micros(300));
    }
    std::thread::sleep(then);
    let kill = format!("kill -{signal} {}", child.id());
    let _ = Command::new("sh")
        .args(["-c", &kill])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    !child.wait().unwrap().success()
}

const QUANTIZE: [&str; 6] = ["quantize", "source", "--out", "out", "--bits", "4"];

fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [arguments, more].concat()
}

/// Rounds of kills; more of them with PLANISH_ROUNDS.
#[test]
fn killed_runs_go_on_to_the_same_bytes() {
    let scratch = Scratch::new();
    large(&scratch, "source");
    scratch.succeed(&["quantize", "source", "--out", "packed"]);
    let commands: [&[&str]; 3] = [
        &QUANTIZE,
        &["dequantize", "packed", "--out", "out"],
        &["convert", "packed", "--to", "mlx", "--out", "out"],
    ];
    let rounds = std::env::var("PLANISH_ROUNDS").map_or(2, |rounds| rounds.parse().unwrap());
    let (mut kills, mut gone_on) = (0, 0);
    for command in commands {
        scratch.succeed(command);
        let expected = contents(&scratch.path("out"));
        for round in 0..rounds {
            std::fs::remove_dir_all(scratch.path("out")).unwrap();
            let resumed = with(command, &["--resume"]);
            // The first run need not know that there will be another.
            let first = if round % 2 == 0 { command } else { &resumed[..] };
            let mut before = 0;
            for kill in 0..3u64 {
                let arguments = if kill == 0 { first } else { &resumed[..] };
                let then = Duration::from_micros((round as u64 * 997 + kill * 379) % 3000);
                if !interrupted(&scratch, arguments, "KILL", before + 1, then) {
                    break;
                }
                kills += 1;
                before = whole(&scratch);
            }
            if !scratch.path("out").exists() {
                gone_on += usize::from(whole(&scratch) > 0);
                scratch.succeed(&resumed);
            }
            assert_eq!(contents(&scratch.path("out")), expected, "{command:?}, round {round}");
            assert_eq!(scratch.names(), ["out", "packed", "source"]);
        }
        std::fs::remove_dir_all(scratch.path("out")).unwrap();
    }
    println!("{kills} kills, {gone_on} runs went on with something");
    assert!(kills > 3 && gone_on > 2, "{kills} kills, {gone_on} runs went on");
}

/// What is there is not computed again: a byte that the journal vouches for and that has another value is noticed, the rest stays.
#[test]
fn only_what_is_missing_or_damaged_is_written() {
    let scratch = Scratch::new();
    large(&scratch, "source");
    scratch.succeed(&QUANTIZE);
    let expected = contents(&scratch.path("out"));
    std::fs::remove_dir_all(scratch.path("out")).unwrap();
    assert!(interrupted(&scratch, &QUANTIZE, "KILL", 9, Duration::ZERO));
    let [folder] = &unfinished(&scratch)[..] else { panic!() };
    let file = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    // The first tensor, the last bytes of the header's padding, another run's files.
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[start + 5] ^= 1;
    bytes[start - 1] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    std::fs::write(folder.join("of_an_older_source.json"), "{}").unwrap();
    // A line of the journal that is cut.
    let journal = folder.join(".journal");
    let mut lines = std::fs::read(&journal).unwrap();
    lines.extend(b"{\"tensor\": \"mod");
    std::fs::write(&journal, lines).unwrap();
    scratch.succeed(&with(&QUANTIZE, &["--resume"]));
    assert_eq!(contents(&scratch.path("out")), expected);
    assert_eq!(scratch.names(), ["out", "source"]);
}

#[test]
fn other_options_and_sources_are_refused_by_name() {
    let scratch = Scratch::new();
    large(&scratch, "source");
    assert!(interrupted(&scratch, &QUANTIZE, "KILL", 2, Duration::ZERO));
    let cases: [(&[&str], &str); 5] = [
        (
            &["--group-size", "32"],
            "the packing was 4 bits in groups of 64 and is 4 bits in groups of 32",
        ),
        (
            &["--method", "mlx"],
            "the method was search (least weighted error, without data) and is the rule of MLX on Metal and CUDA",
        ),
        (&["--clamp"], "clamping was false and is true"),
        (&["--format", "mlx"], "the format was metal and is mlx"),
        (
            &["--exclude", "layers.3.mlp.down_proj"],
            "the list of plain modules was [] and is [\"layers.3.mlp.down_proj\"]",
        ),
    ];
    for (more, difference) in cases {
        let message = scratch.fail(&with(&with(&QUANTIZE, more), &["--resume"]));
        let expected = format!(
            "error: out: cannot go on with what an earlier run left: {difference} (without --resume it is begun anew)"
        );
        assert_eq!(message, expected);
    }
    scratch.edit_config("source", |config| config["rope_theta"] = json!(5.0));
    let message = scratch.fail(&with(&QUANTIZE, &["--resume"]));
    assert!(message.contains("config.json of the source was "), "{message}");
    scratch.edit_config("source", |config| {
        config.as_object_mut().unwrap().remove("rope_theta");
    });
    let weights = scratch.path("source/model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, bytes).unwrap();
    let message = scratch.fail(&with(&QUANTIZE, &["--resume"]));
    assert!(
        message.contains(": model.safetensors was ") && message.contains("after 1970"),
        "{message}"
    );
    // Without the flag it is begun anew, and nothing stays.
    scratch.succeed(&QUANTIZE);
    assert_eq!(scratch.names(), ["out", "source"]);
}

/// With the flag what is done stays, and the message says so; a run that is alive is left alone.
#[test]
fn signals_leave_what_is_done_if_asked() {
    let scratch = Scratch::new();
    large(&scratch, "source");
    // A run may be faster than its signals.
    let tries = 20;
    let stopped = (0..tries).find_map(|_| {
        let stopped = stopped_while_alive(&scratch);
        if stopped.is_none() {
            std::fs::remove_dir_all(scratch.path("out")).unwrap();
        }
        stopped
    });
    let (meanwhile, output) = stopped.unwrap_or_else(|| panic!("{tries} runs were faster than their signals"));
    assert_eq!(meanwhile, "error: out: another run is writing it now");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(143), "{stderr}");
    assert_eq!(
        stderr,
        "note: what is done stays, hidden, beside out: the same command goes on with it\nerror: stopped: out was not written\n"
    );
    assert_eq!(unfinished(&scratch).len(), 1);
    scratch.succeed(&with(&QUANTIZE, &["--resume"]));
    assert_eq!(scratch.names(), ["out", "source"]);
}

/// Halts a run once it has written something, lets another try meanwhile, and ends it with a signal: what the other said, and how
/// the run ended. `None` if it was faster.
fn stopped_while_alive(scratch: &Scratch) -> Option<(String, Output)> {
    let resumed = with(&QUANTIZE, &["--resume"]);
    let mut command = scratch.command(&resumed);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while whole(scratch) == 0 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_micros(300));
    }
    let id = child.id();
    let signal = |names: &[&str]| {
        let kills: Vec<String> = names.iter().map(|name| format!("kill -{name} {id}")).collect();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &kills.join("; ")])
            .stderr(Stdio::null())
            .status()
            .unwrap();
    };
    signal(&["STOP"]);
    let is_alive = !unfinished(scratch).is_empty() && !scratch.path("out").exists();
    let meanwhile = is_alive.then(|| scratch.fail(&resumed));
    signal(&["TERM", "CONT"]);
    let output = child.wait_with_output().unwrap();
    meanwhile
        .filter(|_| !output.status.success())
        .map(|meanwhile| (meanwhile, output))
}

/// A disk that is too small at first. Needs the right to mount: root, or user namespaces.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_gone_on_from() {
    let scratch = Scratch::new();
    large(&scratch, "source");
    scratch.succeed(&QUANTIZE);
    let expected = contents(&scratch.path("out"));
    std::fs::create_dir(scratch.path("disk")).unwrap();
    // The disk is seen by this shell and its children alone: what it holds at the end is copied out of it.
    let script = "mount -t tmpfs -o size=2m tmpfs disk || exit 9
        \"$@\"; echo \"code $?\"
        mount -o remount,size=20m disk || exit 9
        \"$@\" >/dev/null || exit 8
        cp -a disk kept";
    let arguments = ["quantize", "source", "--out", "disk/out", "--bits", "4", "--resume"];
    let planish = scratch.command(&arguments);
    let mut shell = Command::new("unshare");
    shell.args(["-r", "-m", "sh", "-c", script, "sh"]);
    shell.arg(planish.get_program()).args(planish.get_args());
    let output = shell.current_dir(scratch.path("")).output().unwrap();
    let (shown, errors) = [&output.stdout, &output.stderr]
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .into();
    assert!(
        output.status.success() && shown.ends_with("code 1\n"),
        "{shown}{errors}"
    );
    assert!(
        errors.contains("No space left on device") && errors.contains("the same command goes on"),
        "{errors}"
    );
    // The card has the name of the folder in it, which is the same.
    let kept = scratch.path("kept");
    assert_eq!(contents(&kept.join("out")), expected);
    assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 1);
}
