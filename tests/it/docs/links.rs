//! Links of the pages, and of those that lead to them.

use super::page::{Page, pages, root};

/// Links that lead nowhere.
fn dead(page: &Page) -> Vec<String> {
    let mut found = Vec::new();
    for link in page.links() {
        if link.starts_with("https://") {
            continue;
        }
        let (path, anchor) = match link.split_once('#') {
            Some((path, anchor)) => (path, Some(anchor)),
            None => (link.as_str(), None),
        };
        let directory = page.path.rsplit_once('/').map_or("", |(dir, _)| dir);
        let target = match (path, directory) {
            ("", _) => page.path.clone(),
            (path, "") => path.to_owned(),
            (path, directory) => match path.strip_prefix("../") {
                Some(above) => above.to_owned(),
                None => format!("{directory}/{path}"),
            },
        };
        let is_there = root().join(&target).exists();
        let has_anchor = || {
            let anchors = anchor.map(|anchor| (anchor, Page::read(&target).anchors()));
            anchors.is_none_or(|(anchor, known)| known.iter().any(|known| known == anchor))
        };
        if !is_there || !has_anchor() {
            found.push(format!("{}: {link}", page.path));
        }
    }
    found
}

#[test]
fn links_lead_somewhere() {
    let others = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    ];
    let all = pages().into_iter().chain(others.map(Page::read));
    let found: Vec<String> = all.flat_map(|page| dead(&page)).collect();
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn the_readme_leads_to_every_page() {
    let links = Page::read("README.md").links();
    for page in pages() {
        assert!(
            links.contains(&page.path),
            "README does not link {}",
            page.path
        );
    }
}

#[test]
fn a_link_into_the_void_is_found() {
    let page = Page {
        path: "docs/x.md".to_owned(),
        text: "[a](none.md) [b](#nowhere) [c](../README.md#nothing-here) [d](../README.md)"
            .to_owned(),
    };
    assert_eq!(dead(&page).len(), 3);
}
