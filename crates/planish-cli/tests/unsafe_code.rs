//! Where `unsafe` is: the crates that SECURITY.md names and no others, each block, implementation and call with its reason.
//! `--nocapture` prints the list, crate by crate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One use of `unsafe` that asserts something: not a function or type that only asks it of others.
struct Claim {
    place: String,
    reason: Option<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The line without a comment at its end.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// The word, not a part of another.
fn says_unsafe(line: &str) -> bool {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    code(line).split(|letter| !is_word(letter)).any(|word| word == "unsafe")
}

/// A promise made here; `unsafe fn` in a signature or a type asks for one, which is documented under "# Safety".
fn claims(line: &str) -> bool {
    let code = code(line);
    code.contains("unsafe {") || code.contains("unsafe impl") || code.trim_end().ends_with("unsafe")
}

/// The comment `SAFETY:` above the statement.
fn reason(lines: &[&str], at: usize) -> Option<String> {
    let start = at.saturating_sub(16);
    let first = (start..=at).rev().find(|&line| lines[line].contains("SAFETY:"))?;
    let comment = lines[first..=at].iter().take_while(|line| line.contains("//"));
    let words = comment.map(|line| line.split("//").nth(1).unwrap_or_default().trim());
    Some(words.collect::<Vec<_>>().join(" ").replace("SAFETY: ", ""))
}

/// By crate.
fn all() -> BTreeMap<String, Vec<Claim>> {
    let mut crates = BTreeMap::new();
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let mut files = Vec::new();
        sources(&folder.join("src"), &mut files);
        files.sort();
        let mut list = Vec::new();
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            for (at, line) in lines.iter().enumerate() {
                if says_unsafe(line) && claims(line) {
                    let path = file.strip_prefix(&folder).unwrap().display();
                    list.push(Claim {
                        place: format!("{path}:{}", at + 1),
                        reason: reason(&lines, at),
                    });
                }
            }
        }
        crates.insert(name, list);
    }
    crates
}

#[test]
fn unsafe_code_is_where_it_is_said_to_be() {
    let security = std::fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let row = |name: &str| security.lines().find(|line| line.starts_with(&format!("| {name} |")));
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for (name, claims) in all() {
        println!("{name}: {} claims", claims.len());
        for claim in &claims {
            println!(
                "    {}: {}",
                claim.place,
                claim.reason.as_deref().unwrap_or("NO REASON")
            );
            assert!(
                claim.reason.is_some(),
                "{name}, {}: no SAFETY comment above it",
                claim.place
            );
        }
        let root_file = ["lib.rs", "main.rs"].map(|file| root().join("crates").join(&name).join("src").join(file));
        let root_file = root_file.iter().find(|file| file.exists()).unwrap();
        let forbids = std::fs::read_to_string(root_file)
            .unwrap()
            .contains("#![forbid(unsafe_code)]");
        assert_eq!(
            forbids,
            claims.is_empty(),
            "{name}: a crate without unsafe code forbids it"
        );
        assert_eq!(
            row(&name).is_some(),
            !claims.is_empty(),
            "{name}: its row in SECURITY.md"
        );
        if claims.is_empty() {
            without.push(name)
        } else {
            with.push(name)
        }
    }
    assert_eq!(with.len(), 6, "{with:?}");
    for name in without {
        let names = security.lines().find(|line| line.contains("forbid it")).unwrap();
        assert!(names.contains(&format!("`{name}`")), "SECURITY.md: {name} forbids it");
    }
}
