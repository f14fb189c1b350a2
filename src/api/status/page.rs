//! The facts as one HTML page, for people.
//!
//! Every list and every text from outside has a limit, so that the page has one
//! ([`PAGE_BYTES_MAX`]); `/api/v1/status` has the rest.

use super::facts::{
    BlockFacts, ConfinementFacts, Facts, FailureFacts, GateFacts, LocalBlockFacts, PrometheusFacts,
    QueryFacts, ReloaderFacts, ShippingFacts, UploadFacts,
};
use super::markup::Markup;
use super::quantity::{Bytes, Moment, Span};

/// The page is never larger.
#[cfg(test)]
pub(super) const PAGE_BYTES_MAX: usize = 30 << 10;

/// The icon is empty: browsers ask for one where a page names none.
const HEAD: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
    <link rel=\"icon\" href=\"data:,\">\n";

/// The page asks for itself again, every five seconds.
const REFRESH: &str = "<meta http-equiv=\"refresh\" content=\"5\">\n";

/// What a browser applies; its hash is in the policy that the page is sent with.
pub(super) const STYLE: &str = include_str!("page.css");

const REVISION_BYTES_SHOWN: usize = 12;
const BLOCKS_SHOWN_MAX: usize = 40;
const LABELS_SHOWN_MAX: usize = 20;
const FAILURES_SHOWN_MAX: usize = 5;
const UNREADABLE_SHOWN_MAX: usize = 10;
const NAME_BYTES_MAX: usize = 100;
const VALUE_BYTES_MAX: usize = 150;
const REASON_BYTES_MAX: usize = 200;
const ERROR_BYTES_MAX: usize = 600;

/// The page; with `refreshes`, one that a browser asks for again every few seconds.
pub(super) fn page(facts: &Facts, refreshes: bool) -> String {
    let mut page = Markup::default();
    page.raw(HEAD);
    if refreshes {
        page.raw(REFRESH);
    }
    page.raw("<title>")
        .raw(verdict(facts).1)
        .raw(" – outrigger</title>\n<style>");
    page.raw(STYLE).raw("</style>\n</head>\n<body>\n");
    header(&mut page, facts);
    page.raw("<main>\n");
    prometheus(&mut page, &facts.prometheus, facts.process.now_ms);
    calls(&mut page, facts);
    queries(&mut page, facts.query.as_ref());
    shipping(&mut page, facts);
    local_blocks(&mut page, facts.local_blocks.as_ref());
    reloader(&mut page, facts.reloader.as_ref(), facts.process.now_ms);
    // Relative links, for proxies that add to the path.
    page.raw("</main>\n<footer>");
    match refreshes {
        true => page.raw("Asks again every 5 s; <a href=\"?refresh=off\">stop</a>"),
        false => page.raw("Does not change; <a href=\"./\">follow</a>"),
    };
    page.raw(" · <a href=\"api/v1/status\">as JSON</a> · <a href=\"metrics\">metrics</a>");
    page.raw("</footer>\n</body>\n</html>\n");
    page.finish()
}

/// How grave it is, and what is told in a few words.
fn verdict(facts: &Facts) -> (&'static str, &'static str) {
    let shipping = facts.shipping.as_ref();
    let reloader = facts.reloader.as_ref();
    match facts.prometheus.state {
        "down" => ("bad", "Prometheus does not answer"),
        "replaying" => ("warn", "Prometheus replays its WAL"),
        "unknown" => ("warn", "starting"),
        _ if shipping.is_some_and(|shipping| shipping.damaged > 0) => ("bad", "damaged blocks"),
        _ if reloader.is_some_and(|reloader| !reloader.current) => {
            ("warn", "configuration not loaded")
        }
        _ if shipping.is_some_and(is_stuck) => ("warn", "blocks wait"),
        _ if !facts.process.ready => ("warn", "not ready"),
        _ => ("ok", "all is well"),
    }
}

/// Whether a block waits because something failed.
fn is_stuck(shipping: &ShippingFacts) -> bool {
    let stuck = |block: &BlockFacts| matches!(block.state, "retrying" | "held_back");
    shipping.blocks.iter().any(stuck)
}

fn header(page: &mut Markup, facts: &Facts) {
    let process = &facts.process;
    let (class, text) = verdict(facts);
    page.raw("<header>\n<h1>outrigger: ");
    badge(page, class, text);
    page.raw("</h1>\n<div>version ").text(process.version);
    // As git abbreviates it; whole in the document.
    let revision = process.revision;
    let revision = revision.get(..REVISION_BYTES_SHOWN).unwrap_or(revision);
    page.raw(" (").cut(revision, NAME_BYTES_MAX);
    page.raw("), stands in for thanos sidecar ")
        .text(process.stands_in_for);
    page.raw(" · up ").text(Span(process.uptime_seconds));
    page.raw(" · ").text(Moment(Some(process.now_ms)));
    page.raw(if process.ready {
        " · ready"
    } else {
        " · not ready"
    });
    page.raw("</div>\n</header>\n");
}

fn prometheus(page: &mut Markup, facts: &PrometheusFacts, now_ms: i64) {
    page.raw("<section>\n<h2>Prometheus</h2>\n<dl>\n");
    term(page, "State");
    match facts.state {
        "up" => badge(page, "ok", "up"),
        "replaying" => badge(page, "warn", "replays its write-ahead log"),
        "down" => badge(page, "bad", "down"),
        _ => badge(page, "warn", "not asked yet"),
    };
    term(page, "URL").cut(&facts.url, ERROR_BYTES_MAX);
    term(page, "Version").cut(facts.version.as_deref().unwrap_or("–"), NAME_BYTES_MAX);
    term(page, "Oldest sample").text(Moment(facts.oldest_sample_ms));
    term(page, "External labels");
    let labels = &facts.external_labels;
    if labels.is_empty() {
        page.raw("–");
    }
    for (name, value) in labels.iter().take(LABELS_SHOWN_MAX) {
        page.raw("<div><code>").cut(name, NAME_BYTES_MAX);
        page.raw("=&quot;")
            .cut(value, VALUE_BYTES_MAX)
            .raw("&quot;</code></div>");
    }
    more(page, labels.iter().count(), LABELS_SHOWN_MAX);
    page.raw("</dl>\n");
    if let Some(failure) = facts.last_failure.as_ref() {
        page.raw("<h3>Last failure</h3>\n<ul>\n");
        // Once it is up, there is nothing to do about what was.
        error(page, failure, now_ms, facts.state == "down");
        page.raw("</ul>\n");
    }
    page.raw("</section>\n");
}

fn calls(page: &mut Markup, facts: &Facts) {
    page.raw("<section>\n<h2>StoreAPI and disk</h2>\n<dl>\n");
    let mut gate = |name, gate: &GateFacts| {
        term(page, name)
            .text(gate.running)
            .raw(" of ")
            .text(gate.running_max);
        page.raw(" running, ").text(gate.waiting).raw(" waiting");
    };
    gate("Series calls", &facts.store_calls.series);
    gate("Label and list calls", &facts.store_calls.lists);
    if let Some(io) = &facts.io {
        term(page, "Disk engine").text(io.engine);
        page.raw(" <span class=\"dim\">(")
            .cut(&io.reason, REASON_BYTES_MAX)
            .raw(")</span>");
        term(page, "Buffers")
            .text(io.buffers_in_use)
            .raw(" of ")
            .text(io.buffers_max);
        let bytes = u64::try_from(io.buffers_bytes).unwrap_or(u64::MAX);
        page.raw(" in use, ").text(Bytes(bytes)).raw(" in all");
    }
    confinement(page, &facts.confinement);
    page.raw("</dl>\n</section>\n");
}

fn queries(page: &mut Markup, facts: Option<&QueryFacts>) {
    let Some(query) = facts else {
        return;
    };
    page.raw("<section>\n<h2>Queries</h2>\n<dl>\n");
    term(page, "Now").text(query.running).raw(" of ");
    page.text(query.running_max).raw(" running, ");
    page.text(query.waiting).raw(" waiting");
    term(page, "Longest").text(Span(query.timeout_ms / 1000));
    term(page, "Since start")
        .text(query.answered)
        .raw(" answered, ");
    page.text(query.not_answered).raw(" not");
    term(page, "Expressions").text(query.rewritten);
    page.raw(" rewritten, ")
        .text(query.unsupported)
        .raw(" unsupported</dl>\n</section>\n");
}

fn confinement(page: &mut Markup, facts: &ConfinementFacts) {
    term(page, "Confinement");
    match facts.landlock_abi {
        0 => page.raw("no Landlock"),
        abi => page.raw("Landlock ").text(abi),
    };
    page.raw(", system calls: ").raw(facts.system_calls);
    if let Some(reason) = &facts.reason {
        page.raw(" <span class=\"dim\">(")
            .cut(reason, REASON_BYTES_MAX)
            .raw(")</span>");
    }
}

fn shipping(page: &mut Markup, facts: &Facts) {
    page.raw("<section class=\"wide\">\n<h2>Shipping</h2>\n");
    let Some(shipping) = &facts.shipping else {
        page.raw("<p>No bucket is configured, so nothing is shipped.</p>\n</section>\n");
        return;
    };
    page.raw("<dl>\n");
    term(page, "State");
    match shipping.state {
        "running" => page.raw("running"),
        "other_owner" => badge(
            page,
            "warn",
            "another process ships from this data directory",
        ),
        _ => badge(
            page,
            "warn",
            "waits for the data directory or for external labels",
        ),
    };
    term(page, "Bucket").cut(&shipping.bucket, REASON_BYTES_MAX);
    let integrity = shipping.integrity.as_deref();
    term(page, "Integrity check").cut(
        integrity.unwrap_or("sizes; no checksum was sent yet, or the bucket knows none"),
        NAME_BYTES_MAX,
    );
    term(page, "Blocks")
        .text(shipping.shipped)
        .raw(" in the bucket, ");
    page.text(shipping.waiting).raw(" waiting, ");
    damaged(page, shipping.damaged);
    page.raw(", ").text(shipping.left_out).raw(" left out");
    term(page, "Last look").text(Moment(shipping.last_look_ms));
    term(page, "Last shipped");
    match &shipping.last_shipped {
        None => page.raw("none since start"),
        Some(shipped) => {
            page.raw("<code>").text(&shipped.block).raw("</code>, ");
            page.text(Bytes(shipped.size_bytes))
                .raw(" in ")
                .text(Span(shipped.milliseconds / 1000));
            page.raw(", ").text(Moment(Some(shipped.at_ms)))
        }
    };
    page.raw("</dl>\n");
    if let Some(upload) = &shipping.upload {
        progress(page, upload);
    }
    if !shipping.failures.is_empty() {
        page.raw("<h3>Last failures</h3>\n<ul>\n");
        for failure in shipping.failures.iter().take(FAILURES_SHOWN_MAX) {
            error(page, failure, facts.process.now_ms, true);
        }
        page.raw("</ul>\n");
        more(page, shipping.failures.len(), FAILURES_SHOWN_MAX);
    }
    blocks(page, shipping);
    page.raw("</section>\n");
}

fn damaged(page: &mut Markup, count: usize) {
    match count {
        0 => page.raw("0 damaged"),
        count => page
            .raw("<b class=\"bad\">")
            .text(count)
            .raw(" damaged</b>"),
    };
}

fn progress(page: &mut Markup, upload: &UploadFacts) {
    page.raw("<h3>Uploading <code>")
        .text(&upload.block)
        .raw("</code></h3>\n");
    page.raw("<progress max=\"").text(upload.total_bytes.max(1));
    page.raw("\" value=\"")
        .text(upload.sent_bytes)
        .raw("\"></progress>\n<p>");
    page.text(Bytes(upload.sent_bytes))
        .raw(" of ")
        .text(Bytes(upload.total_bytes));
    if let Some(rate) = upload.bytes_per_second {
        page.raw(", ").text(Bytes(rate)).raw("/s");
    }
    if let Some(left) = upload.seconds_left {
        page.raw(", ").text(Span(left)).raw(" left");
    }
    page.raw("; for ").text(Span(upload.seconds)).raw("</p>\n");
}

fn blocks(page: &mut Markup, shipping: &ShippingFacts) {
    if shipping.blocks.is_empty() {
        return;
    }
    page.raw("<h3>Blocks</h3>\n<div class=\"scroll\"><table>\n");
    page.raw("<tr><th>Block</th><th>From</th><th>To</th><th>State</th></tr>\n");
    for block in shipping.blocks.iter().take(BLOCKS_SHOWN_MAX) {
        page.raw("<tr><td><code>")
            .text(&block.block)
            .raw("</code></td><td>");
        page.text(Moment(block.mint_ms))
            .raw("</td><td>")
            .text(Moment(block.maxt_ms));
        page.raw("</td><td>");
        match block.state {
            "shipped" => page.raw("shipped"),
            "corrupt" | "unreadable" => badge(page, "bad", block.state),
            "uploading" => badge(page, "ok", block.state),
            "retrying" | "held_back" => badge(page, "warn", block.state),
            other => page.text(other),
        };
        page.raw("</td></tr>\n");
    }
    page.raw("</table></div>\n");
    let all = shipping
        .blocks
        .len()
        .saturating_add(shipping.blocks_unlisted);
    more(page, all, BLOCKS_SHOWN_MAX);
}

fn local_blocks(page: &mut Markup, facts: Option<&LocalBlockFacts>) {
    page.raw("<section>\n<h2>Answers from local blocks</h2>\n");
    let Some(local) = facts else {
        page.raw("<p>Turned off by --no-store.local-blocks.</p>\n</section>\n");
        return;
    };
    page.raw("<dl>\n");
    term(page, "State");
    match local.state {
        "on" => badge(page, "ok", "on"),
        "off" => badge(page, "warn", "off"),
        _ => badge(page, "warn", "waits to learn which blocks Prometheus has"),
    };
    if let Some(reason) = &local.reason {
        term(page, "Reason").cut(reason, ERROR_BYTES_MAX);
    }
    term(page, "Blocks")
        .text(local.serving)
        .raw(" of ")
        .text(local.on_disk)
        .raw(" answer");
    term(page, "Prometheus from");
    match local.cut_ms {
        None => page.raw("the beginning: it answers for all times"),
        cut => page.text(Moment(cut)),
    };
    term(page, "Unreadable")
        .text(local.unreadable)
        .raw("</dl>\n");
    if !local.unreadable_blocks.is_empty() {
        page.raw("<ul>\n");
        for block in local.unreadable_blocks.iter().take(UNREADABLE_SHOWN_MAX) {
            page.raw("<li><code>").text(&block.block).raw("</code>: ");
            page.cut(&block.reason, REASON_BYTES_MAX).raw("</li>\n");
        }
        page.raw("</ul>\n");
        more(page, local.unreadable, UNREADABLE_SHOWN_MAX);
    }
    page.raw("</section>\n");
}

fn reloader(page: &mut Markup, facts: Option<&ReloaderFacts>, now_ms: i64) {
    page.raw("<section>\n<h2>Reloader</h2>\n");
    let Some(reloader) = facts else {
        page.raw("<p>Nothing is watched: there is no --reloader.config-file and no ");
        page.raw("--reloader.rule-dir.</p>\n</section>\n");
        return;
    };
    page.raw("<dl>\n");
    term(page, "State");
    match reloader.current {
        true => badge(page, "ok", "Prometheus has loaded what the files say"),
        false => badge(page, "warn", "Prometheus has not loaded what the files say"),
    };
    term(page, "Last reload").text(Moment(reloader.last_success_ms));
    term(page, "Watched")
        .text(reloader.watched_directories)
        .raw(" directories</dl>\n");
    if let Some(failure) = &reloader.last_failure {
        page.raw("<h3>Last failure</h3>\n<ul>\n");
        error(page, failure, now_ms, !reloader.current);
        page.raw("</ul>\n");
    }
    page.raw("</section>\n");
}

/// A failure as an item of a list.
fn error(page: &mut Markup, failure: &FailureFacts, now_ms: i64, with_remedy: bool) {
    page.raw("<li><span class=\"dim\">")
        .text(Moment(Some(failure.at_ms)));
    let age_ms = now_ms.saturating_sub(failure.at_ms);
    if let Ok(age_ms) = u64::try_from(age_ms) {
        page.raw(" (").text(Span(age_ms / 1000)).raw(" ago)");
    }
    if failure.times > 1 {
        page.raw(", ").text(failure.times).raw(" times");
    }
    page.raw(":</span> ");
    if let Some(block) = &failure.block {
        page.raw("<code>").text(block).raw("</code>: ");
    }
    page.cut(&failure.error, ERROR_BYTES_MAX);
    if let Some(remedy) = failure.remedy.filter(|_| with_remedy) {
        page.raw("<br>→ ").cut(remedy, REASON_BYTES_MAX * 2);
    }
    page.raw("</li>\n");
}

fn badge<'a>(page: &'a mut Markup, class: &'static str, text: &'static str) -> &'a mut Markup {
    page.raw("<b class=\"")
        .raw(class)
        .raw("\">")
        .raw(text)
        .raw("</b>")
}

/// Begins an entry of a list of terms; the end of the one before is implied.
fn term<'a>(page: &'a mut Markup, name: &'static str) -> &'a mut Markup {
    page.raw("<dt>").raw(name).raw("</dt><dd>")
}

/// Says how many were left out.
fn more(page: &mut Markup, all: usize, shown_max: usize) {
    if all > shown_max {
        page.raw("<p class=\"dim\">and ")
            .text(all - shown_max)
            .raw(" more</p>\n");
    }
}
