//! The build for fuzzing has no network.

use std::path::Path;

use super::answers::{Content, Listing};
use super::{HubError, OnDownload, Settings};

pub(super) struct Client {
    endpoint: String,
}

pub(super) struct RemoteFile {
    pub content: Content,
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Client {
        Client {
            endpoint: settings.endpoint.clone(),
        }
    }

    fn fails<T>(&self) -> Result<T, HubError> {
        Err(HubError::Unreachable {
            url: self.endpoint.clone(),
            reason: "this build has no network".to_owned(),
        })
    }

    pub(super) fn listing(&self, _: &str, _: &str, _: &mut OnDownload) -> Result<Listing, HubError> {
        self.fails()
    }

    pub(super) fn metadata(&self, _: &str, _: &str, _: &str, _: &mut OnDownload) -> Result<RemoteFile, HubError> {
        self.fails()
    }

    pub(super) fn download(&self, _: &RemoteFile, _: &Path, _: &Path, _: &mut OnDownload) -> Result<(), HubError> {
        self.fails()
    }
}
