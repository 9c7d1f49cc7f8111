//! Folders as the writer makes them: whole or not at all.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use planish_checkpoint::{Checkpoint, Dtype, Error, Planned, Writer, WriterOptions};
use safetensors::SafeTensors;
use tempfile::TempDir;

use crate::sample::Sample;

fn planned(name: &str, dtype: Dtype, shape: &[usize]) -> Planned {
    Planned {
        name: name.to_string(),
        dtype,
        shape: shape.to_vec(),
    }
}

/// A plan whose natural order would misalign the words.
fn plan() -> Vec<Planned> {
    vec![
        planned("a.words", Dtype::U32, &[1, 3]),
        planned("a.scales", Dtype::BF16, &[1, 3]),
        planned("odd", Dtype::U8, &[1]),
        planned("b.words", Dtype::U32, &[1, 3]),
        planned("empty", Dtype::F32, &[0, 4]),
        planned("norm", Dtype::F16, &[5]),
    ]
}

fn data(tensor: &Planned) -> Vec<u8> {
    let size = tensor.shape.iter().product::<usize>() * tensor.dtype.size_bytes();
    (0..size).map(|index| (index + tensor.name.len()) as u8).collect()
}

fn write_plan(target: &Path, options: &WriterOptions) -> Result<PathBuf, Error> {
    let mut writer = Writer::create(target, plan(), options)?;
    for tensor in plan().iter().rev() {
        writer.write(&tensor.name, &data(tensor))?;
    }
    writer.add_file("config.json", b"{}")?;
    writer.add_file("sub/tokenizer.json", b"{}")?;
    writer.finish()
}

/// A temporary folder and a target in it that does not exist.
fn target() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("out");
    (parent, target)
}

fn names(folder: &Path) -> Vec<String> {
    let items = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = items
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[track_caller]
fn refusal(target: &Path, options: &WriterOptions) -> String {
    let error = write_plan(target, options).expect_err("expected a refusal");
    error.to_string().replace(&target.display().to_string(), "OUT")
}

fn forced() -> WriterOptions {
    WriterOptions {
        force: true,
        ..WriterOptions::default()
    }
}

#[test]
fn one_file_that_the_safetensors_crate_reads() {
    let (parent, target) = target();
    write_plan(&target, &WriterOptions::default()).unwrap();
    assert_eq!(names(parent.path()), ["out"]);
    assert_eq!(names(&target), ["config.json", "model.safetensors", "sub"]);
    let content = std::fs::read(target.join("model.safetensors")).unwrap();
    let (header_bytes, metadata) = SafeTensors::read_metadata(&content).unwrap();
    assert_eq!(header_bytes % 8, 0);
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
    let file = SafeTensors::deserialize(&content).unwrap();
    assert_eq!(file.len(), plan().len());
    for tensor in plan() {
        let found = file.tensor(&tensor.name).unwrap();
        assert_eq!((found.shape(), found.data()), (&tensor.shape[..], &data(&tensor)[..]));
        let start = metadata.info(&tensor.name).unwrap().data_offsets.0;
        assert_eq!(start % tensor.dtype.size_bytes(), 0, "{}", tensor.name);
    }
}

#[test]
fn shards_of_bounded_size_with_an_index() {
    let (_parent, target) = target();
    let options = WriterOptions {
        max_shard_bytes: 20,
        format: "mlx",
        ..WriterOptions::default()
    };
    write_plan(&target, &options).unwrap();
    let shards = [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
    ];
    assert_eq!(names(&target)[1..4], shards);
    let index = std::fs::read(target.join("model.safetensors.index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    assert_eq!(index["metadata"]["total_size"], 12 + 6 + 1 + 12 + 10);
    assert_eq!(index["weight_map"].as_object().unwrap().len(), 6);
    assert_eq!(index["weight_map"]["a.scales"], shards[0]);
    assert_eq!(index["weight_map"]["b.words"], shards[1]);
    assert_eq!(index["weight_map"]["norm"], shards[2]);
    for shard in shards {
        let content = std::fs::read(target.join(shard)).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&content).unwrap();
        assert!(metadata.data_len() <= 20);
        assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "mlx");
    }
    let checkpoint = Checkpoint::open(&target).map(|checkpoint| checkpoint.tensor("norm").unwrap().data);
    assert_eq!(checkpoint.unwrap(), data(&planned("norm", Dtype::F16, &[5])));
}

#[test]
fn parents_are_made() {
    let (_parent, target) = target();
    let target = target.join("deep/er");
    assert_eq!(write_plan(&target, &WriterOptions::default()).unwrap(), target);
    assert!(target.join("model.safetensors").is_file());
}

#[cfg(unix)]
#[test]
fn the_folder_is_as_readable_as_any() {
    use std::os::unix::fs::PermissionsExt;
    let (parent, target) = target();
    write_plan(&target, &WriterOptions::default()).unwrap();
    let plain = parent.path().join("plain");
    std::fs::create_dir(&plain).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&target), mode(&plain));
}

#[test]
fn an_unfinished_folder_is_removed() {
    let (parent, target) = target();
    let mut writer = Writer::create(&target, plan(), &WriterOptions::default()).unwrap();
    writer.write("norm", &data(&plan()[5])).unwrap();
    assert_eq!(names(parent.path()).len(), 1, "one hidden folder");
    assert!(names(parent.path())[0].starts_with(".out.planish-"));
    drop(writer);
    assert!(names(parent.path()).is_empty());
}

#[test]
fn targets_that_exist() {
    let (parent, target) = target();
    let exists = "OUT: exists already; give another folder";
    std::fs::create_dir(&target).unwrap();
    assert_eq!(refusal(&target, &WriterOptions::default()), exists);
    write_plan(&target, &forced()).unwrap();
    assert_eq!(refusal(&target, &WriterOptions::default()), exists);
    std::fs::write(target.join("old"), b"").unwrap();
    write_plan(&target, &forced()).unwrap();
    assert_eq!(
        names(&target),
        ["config.json", "model.safetensors", "sub"],
        "nothing of the old folder is left"
    );
    assert_eq!(names(parent.path()), ["out"]);
}

#[test]
fn force_does_not_replace_what_is_no_model() {
    let (parent, target) = target();
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("thesis.tex"), b"").unwrap();
    assert_eq!(
        refusal(&target, &forced()),
        "OUT: exists and does not look like a model (no config.json), so it is not replaced"
    );
    assert_eq!(names(&target), ["thesis.tex"]);
    let file = parent.path().join("file");
    std::fs::write(&file, b"").unwrap();
    for options in [WriterOptions::default(), forced()] {
        assert_eq!(refusal(&file, &options), "OUT: is a file; the output is a folder");
    }
    assert_eq!(names(parent.path()), ["file", "out"]);
}

#[test]
fn a_target_that_appears_meanwhile_is_kept() {
    let (parent, target) = target();
    let writer = Writer::create(&target, Vec::new(), &WriterOptions::default()).unwrap();
    std::fs::create_dir(&target).unwrap();
    assert!(writer.finish().unwrap_err().to_string().contains("exists already"));
    assert_eq!(names(parent.path()), ["out"]);
}

#[test]
fn places_that_cannot_be_written() {
    let (parent, target) = target();
    std::fs::write(&target, b"").unwrap();
    let below = target.join("below");
    let message = refusal(&below, &WriterOptions::default());
    assert_eq!(message, "OUT: Not a directory (os error 20)");
    assert_eq!(names(parent.path()), ["out"]);
    #[cfg(target_os = "linux")]
    {
        let message = refusal(Path::new("/proc/out"), &WriterOptions::default());
        assert!(message.starts_with("OUT: "), "{message}");
    }
}

#[test]
fn bad_plans_and_names() {
    let (parent, target) = target();
    let create = |plan: Vec<Planned>| {
        Writer::create(&target, plan, &WriterOptions::default())
            .err()
            .unwrap()
            .to_string()
    };
    let twice = planned("a", Dtype::U8, &[1]);
    assert!(create(vec![twice.clone(), twice]).ends_with("out: two tensors would have the name `a`"));
    let huge = planned("a", Dtype::F32, &[usize::MAX / 2]);
    assert!(create(vec![huge]).ends_with("of F32 overflows"));
    let mut writer = Writer::create(&target, Vec::new(), &WriterOptions::default()).unwrap();
    for name in ["../x", "/x", ""] {
        let message = writer.add_file(name, b"").unwrap_err().to_string();
        assert!(
            message.ends_with(&format!("`{name}` is not the name of a file in a folder")),
            "{message}"
        );
    }
    drop(writer);
    assert!(names(parent.path()).is_empty());
}

/// The source may be the target: its pages stay mapped while the folder is replaced.
#[test]
fn a_source_is_replaced_while_open() {
    let sample = Sample::new();
    let source = sample.open();
    let before = source.tensor("lm_head.weight").unwrap();
    write_plan(sample.folder(), &forced()).unwrap();
    assert_eq!(source.tensor("lm_head.weight").unwrap().data, before.data);
    assert!(sample.open().entry("lm_head.weight").is_none());
}

/// Runs an ignored test of this program in another process.
fn other_process(test: &str, target: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", test, "--nocapture"])
        .env("PLANISH_TEST_TARGET", target);
    command
}

fn given_target() -> PathBuf {
    PathBuf::from(std::env::var_os("PLANISH_TEST_TARGET").unwrap())
}

#[test]
#[ignore = "a process that a_killed_run starts and kills"]
fn run_to_be_killed() {
    let mut writer = Writer::create(&given_target(), plan(), &WriterOptions::default()).unwrap();
    writer.write("norm", &data(&plan()[5])).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn a_killed_run() {
    let (parent, target) = target();
    let mut run = other_process("write::run_to_be_killed", &target)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let started = || {
        names(parent.path())
            .first()
            .is_some_and(|name| parent.path().join(name).join("model.safetensors").exists())
    };
    while !started() {
        assert!(run.try_wait().unwrap().is_none(), "the run ended early");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // While it lives, another run to the same target leaves its folder alone.
    write_plan(&target, &WriterOptions::default()).unwrap();
    assert_eq!(names(parent.path()).len(), 2);
    std::fs::remove_dir_all(&target).unwrap();
    run.kill().unwrap();
    run.wait().unwrap();
    let left = names(parent.path());
    assert!(
        left.len() == 1 && left[0].starts_with('.'),
        "nothing that looks whole: {left:?}"
    );
    write_plan(&target, &WriterOptions::default()).unwrap();
    assert_eq!(names(parent.path()), ["out"], "the next run removes what was left");
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "a process that a_full_disk starts on a disk of 64 KiB"]
fn run_on_a_small_disk() {
    let target = given_target();
    let tensor = planned("a", Dtype::U8, &[1 << 20]);
    let mut writer = Writer::create(&target, vec![tensor], &WriterOptions::default()).unwrap();
    let error = writer.write("a", &vec![1; 1 << 20]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{}/model.safetensors: No space left on device (os error 28)",
            target.display()
        )
    );
    drop(writer);
    assert!(names(target.parent().unwrap()).is_empty());
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "a process that a_disk_that_cannot_be_written starts"]
fn run_on_a_read_only_disk() {
    let target = given_target();
    let message = refusal(&target, &WriterOptions::default());
    let parent = target.parent().unwrap().display();
    assert!(
        message.starts_with(&format!(
            "OUT: cannot be made: {parent} is not writable: Read-only file system"
        )),
        "{message}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    on_small_disk("size=64k", "write::run_on_a_small_disk");
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_cannot_be_written() {
    on_small_disk("ro", "write::run_on_a_read_only_disk");
}

/// Runs a test with its target's folder on a disk of its own. Needs the right to mount: root, or user namespaces.
#[cfg(target_os = "linux")]
fn on_small_disk(options: &str, test: &str) {
    let (parent, target) = target();
    let run = other_process(test, &target);
    let mut small_disk = Command::new("unshare");
    let script = format!("mount -t tmpfs -o {options} tmpfs \"$0\" && exec \"$@\"");
    small_disk.args(["-r", "-m", "sh", "-c", &script]);
    small_disk
        .arg(parent.path())
        .arg(run.get_program())
        .args(run.get_args());
    let output = small_disk.env("PLANISH_TEST_TARGET", &target).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && shown.contains("1 passed"), "{shown}{errors}");
}

#[test]
#[ignore = "a process that runs_to_one_target starts, several at once"]
fn run_of_many() {
    let target = given_target();
    let options = WriterOptions {
        force: std::env::var_os("PLANISH_TEST_FORCE").is_some(),
        ..WriterOptions::default()
    };
    let Ok(mut writer) = Writer::create(&target, plan(), &options) else {
        return;
    };
    for tensor in plan() {
        writer.write(&tensor.name, &data(&tensor)).unwrap();
    }
    writer.add_file("config.json", b"{}").unwrap();
    match writer.finish() {
        Ok(_) => println!("published"),
        Err(error) => assert!(error.to_string().contains("exists already"), "{error}"),
    }
}

/// Whatever the order, the target is whole, one run has made it, and nothing is left.
#[test]
fn runs_to_one_target() {
    for force in [false, true] {
        for round in 0..10 {
            let (parent, target) = target();
            let run = |index: usize| {
                let mut command = other_process("write::run_of_many", &target);
                if force {
                    command.env("PLANISH_TEST_FORCE", "1");
                }
                let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
                (index, child)
            };
            let runs: Vec<_> = (0..8).map(run).collect();
            let mut published = 0;
            for (index, mut child) in runs {
                if index % 4 == 3 {
                    // Some are killed, somewhere.
                    std::thread::sleep(std::time::Duration::from_millis(round));
                    let _ = child.kill();
                }
                let output = child.wait_with_output().unwrap();
                let shown = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success() || index % 4 == 3, "{shown}");
                published += usize::from(shown.contains("published"));
            }
            assert!(published >= 1 && (force || published <= 2), "{published} published");
            let checkpoint = planish_checkpoint::Checkpoint::open(&target).unwrap();
            for tensor in plan() {
                assert_eq!(checkpoint.tensor(&tensor.name).unwrap().data, data(&tensor));
            }
            std::fs::remove_dir_all(&target).unwrap();
            write_plan(&target, &WriterOptions::default()).unwrap();
            assert_eq!(names(parent.path()), ["out"]);
        }
    }
}
