//! ListObjectsV2 and ListObjects, page by page.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::error::S3Fault;
use super::request::Client;
use super::xml::XmlError;
use crate::objstore::{BucketError, ErrorKind, ListEntry, Listing};

/// A listing on its way.
struct Pages {
    client: Arc<Client>,
    /// What is listed, with a final `/`; empty for the whole bucket.
    prefix: String,
    ready: VecDeque<ListEntry>,
    next: Next,
}

enum Next {
    First,
    /// After this token or marker.
    After(String),
    End,
}

/// The direct children of `prefix`, in order. The first page is fetched before this returns.
pub(super) async fn list(client: Arc<Client>, prefix: String) -> Result<Listing, ErrorKind> {
    let mut pages = Pages {
        client,
        prefix,
        ready: VecDeque::new(),
        next: Next::First,
    };
    pages.fetch().await?;
    let entries = stream::try_unfold(pages, |mut pages| async move {
        let entry = pages.entry().await;
        let entry = entry.map_err(|kind| BucketError::new("list", &pages.prefix, kind))?;
        Ok(entry.map(|entry| (entry, pages)))
    });
    Ok(entries.boxed())
}

impl Pages {
    async fn entry(&mut self) -> Result<Option<ListEntry>, ErrorKind> {
        while self.ready.is_empty() && !matches!(self.next, Next::End) {
            self.fetch().await?;
        }
        Ok(self.ready.pop_front())
    }

    async fn fetch(&mut self) -> Result<(), ErrorKind> {
        let after = match &self.next {
            Next::After(after) => Some(after.as_str()),
            _ => None,
        };
        let (client, wire) = (&self.client, &self.client.wire);
        let call = wire.list_call(&client.config, &self.prefix, after);
        let operation = call.operation;
        let reply = self.client.call(&call).await?;
        let broken = |error: XmlError| {
            let fault = S3Fault::Xml(error);
            self.client.failed(operation, &self.prefix, fault)
        };
        let page = wire.list_page(&reply.body).map_err(broken)?;
        if page.next.as_deref().is_some_and(|next| Some(next) == after) {
            // A server that gives the same page again would be asked for ever.
            return Err(broken(XmlError::Value {
                element: "IsTruncated",
                value: "true, and the next page is this one".to_owned(),
            }));
        }
        let mut entries: Vec<_> = page
            .keys
            .into_iter()
            // The directory's own marker is no child, and what is elsewhere was not asked for.
            .filter(|key| key.len() > self.prefix.len() && key.starts_with(&self.prefix))
            .map(ListEntry::Object)
            .chain(page.prefixes.iter().filter_map(|prefix| {
                let below = prefix.strip_prefix(&self.prefix)?;
                let name = below.strip_suffix('/').unwrap_or(below);
                (!name.is_empty()).then(|| ListEntry::Directory(format!("{}{name}", self.prefix)))
            }))
            .collect();
        entries.sort_by(|a, b| name_of(a).cmp(name_of(b)));
        self.ready.extend(entries);
        self.next = page.next.map_or(Next::End, Next::After);
        Ok(())
    }
}

fn name_of(entry: &ListEntry) -> &str {
    match entry {
        ListEntry::Object(name) | ListEntry::Directory(name) => name,
    }
}
