//! The environment variables of huggingface_hub that planish honours.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Where models come from and where they are kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `HF_HUB_CACHE`, else its older name `HUGGINGFACE_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// `HF_ENDPOINT` without a trailing slash.
    pub endpoint: String,
    /// `HF_TOKEN`, else the file that `hf auth login` wrote (`HF_TOKEN_PATH`, `HF_HOME/token`).
    pub token: Option<String>,
    /// `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`.
    pub offline: bool,
}

impl Settings {
    /// Reads the process environment.
    pub fn from_environment() -> Settings {
        Settings::from_variables(&|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Settings {
        let user_home = variable("HOME")
            .or_else(|| variable("USERPROFILE"))
            .unwrap_or_else(|| ".".into());
        let path = |text: String| match text.strip_prefix("~/") {
            Some(rest) => Path::new(&user_home).join(rest),
            None => PathBuf::from(text),
        };
        let home = variable("HF_HOME").map(path).unwrap_or_else(|| {
            let caches = variable("XDG_CACHE_HOME")
                .map(path)
                .unwrap_or_else(|| Path::new(&user_home).join(".cache"));
            caches.join("huggingface")
        });
        let is_true = |name| {
            variable(name).is_some_and(|value| matches!(value.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
        };
        let token_file = variable("HF_TOKEN_PATH")
            .map(path)
            .unwrap_or_else(|| home.join("token"));
        let token = variable("HF_TOKEN").or_else(|| fs::read_to_string(token_file).ok());
        Settings {
            cache: variable("HF_HUB_CACHE")
                .or_else(|| variable("HUGGINGFACE_HUB_CACHE"))
                .map(path)
                .unwrap_or_else(|| home.join("hub")),
            endpoint: variable("HF_ENDPOINT")
                .map_or("https://huggingface.co".into(), |url| url.trim_end_matches('/').into()),
            token: token
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty() && !is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN")),
            offline: is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::from_variables(&|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_cache_is_where_python_looks() {
        assert_eq!(
            settings(&[("HOME", "/h")]).cache,
            Path::new("/h/.cache/huggingface/hub")
        );
        assert_eq!(
            settings(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]).cache,
            Path::new("/x/huggingface/hub")
        );
        assert_eq!(
            settings(&[("HF_HOME", "/f"), ("XDG_CACHE_HOME", "/x")]).cache,
            Path::new("/f/hub")
        );
        assert_eq!(
            settings(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "~/c"), ("HOME", "/h")]).cache,
            Path::new("/h/c")
        );
        assert_eq!(
            settings(&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/f")]).cache,
            Path::new("/old")
        );
        let both = [("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")];
        assert_eq!(settings(&both).cache, Path::new("/new"));
    }

    #[test]
    fn the_token_comes_from_the_variable_then_the_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("token"), "from-file\n").unwrap();
        let home = folder.path().to_str().unwrap();
        assert_eq!(settings(&[("HF_HOME", home)]).token.as_deref(), Some("from-file"));
        assert_eq!(
            settings(&[("HF_HOME", home), ("HF_TOKEN", "x")]).token.as_deref(),
            Some("x")
        );
        assert_eq!(
            settings(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token,
            None
        );
        assert_eq!(settings(&[("HF_HOME", "/nowhere")]).token, None);
    }

    #[test]
    fn offline_takes_the_usual_words() {
        assert!(settings(&[("HF_HUB_OFFLINE", "1")]).offline);
        assert!(settings(&[("TRANSFORMERS_OFFLINE", "yes")]).offline);
        assert!(!settings(&[("HF_HUB_OFFLINE", "0")]).offline);
        assert_eq!(settings(&[("HF_ENDPOINT", "http://x:1/")]).endpoint, "http://x:1");
    }
}
