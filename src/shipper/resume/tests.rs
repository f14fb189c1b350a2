//! What is kept of an upload, held against what may have become of the file meanwhile.

use std::num::NonZeroU64;

use tokio::sync::watch;

use super::*;
use crate::disk::Containment;
use crate::objstore::{PartPlan, SentPart};
use crate::shipper::ShipperMetrics;
use crate::shipper::bulletin::Bulletin;

struct Fixture {
    scratch: tempfile::TempDir,
    data: Dir,
    block: BlockId,
}

impl Fixture {
    async fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("index"), "the index").unwrap();
        let data = Dir::open(scratch.path(), Containment::Beneath).await;
        Self {
            data: data.unwrap(),
            scratch,
            block: BlockId::from_u128(7),
        }
    }

    async fn file(&self) -> DiskFile {
        self.data.open_file("index").await.unwrap()
    }

    /// As another process would.
    async fn open(&self) -> Resume {
        let bulletin = Bulletin::new(watch::Sender::default());
        let progress = Progress::new(self.block, 9, &ShipperMetrics::default(), &bulletin);
        Resume::open(&self.data, self.block, progress).await
    }

    fn document(&self) -> PathBuf {
        self.scratch.path().join(document_path(self.block))
    }
}

fn upload(parts: u32) -> MultipartState {
    let part = |number| {
        let etag = format!("\"{number:032x}\"");
        (
            number,
            SentPart {
                etag,
                crc64: u64::MAX - u64::from(number),
            },
        )
    };
    MultipartState {
        destination: "http://127.0.0.1:9000/b/01/index".to_owned(),
        upload_id: "an id / with \"quotes\"".to_owned(),
        part_bytes: NonZeroU64::new(8 << 20).unwrap(),
        integrity: "CRC64NVME".to_owned(),
        created_seconds: Some(1_369_353_600),
        parts: (1..=parts).map(part).collect(),
    }
}

#[tokio::test]
async fn another_process_goes_on_where_this_one_was() {
    let fixture = Fixture::new().await;
    let file = fixture.open().await.file("index", &fixture.file().await);
    assert_eq!(file.earlier().await, None);
    for parts in 0..3 {
        file.keep(Some(&upload(parts))).await;
        let again = fixture.open().await.file("index", &fixture.file().await);
        assert_eq!(again.earlier().await, Some(upload(parts)));
        assert_eq!(again.sent().await, None);
    }
    file.keep(None).await;
    let again = fixture.open().await.file("index", &fixture.file().await);
    assert_eq!((again.earlier().await, again.sent().await), (None, None));
    file.finished(Some(u64::MAX)).await;
    let again = fixture.open().await.file("index", &fixture.file().await);
    assert_eq!(
        (again.earlier().await, again.sent().await),
        (None, Some(u64::MAX))
    );
    again.finished(None).await;
    assert_eq!(file.resume.clone().0.document.lock().await.files.len(), 1);
    let without = fixture.open().await.file("index", &fixture.file().await);
    assert_eq!(
        without.sent().await,
        None,
        "without a checksum it is sent again"
    );
}

#[tokio::test]
async fn a_file_that_was_replaced_starts_over_and_its_upload_is_given_up() {
    let fixture = Fixture::new().await;
    let resume = fixture.open().await;
    let before = resume.file("index", &fixture.file().await);
    before.keep(Some(&upload(2))).await;
    let path = fixture.scratch.path();
    std::fs::write(path.join("new"), "the index").unwrap();
    std::fs::rename(path.join("new"), path.join("index")).unwrap();
    let after = resume.file("index", &fixture.file().await);
    assert_eq!(after.earlier().await, None);
    assert!(
        resume
            .take_stale(std::slice::from_ref(&before))
            .await
            .is_empty()
    );
    assert_eq!(resume.take_stale(&[after]).await, [upload(2)]);
    assert_eq!(before.earlier().await, None, "it is taken once");
}

#[tokio::test]
async fn what_makes_no_sense_is_as_if_it_were_not_there() {
    let fixture = Fixture::new().await;
    let file = fixture.open().await.file("index", &fixture.file().await);
    file.keep(Some(&upload(2))).await;
    let whole = std::fs::read(fixture.document()).unwrap();
    for cut in 0..whole.len() {
        std::fs::write(fixture.document(), &whole[..cut]).unwrap();
        let again = fixture.open().await.file("index", &fixture.file().await);
        assert_eq!(again.earlier().await, None, "cut at {cut}");
        assert!(left_open(&fixture.data, fixture.block).await.is_empty());
    }
    let text = String::from_utf8(whole).unwrap();
    let other_block = text.replace(
        &fixture.block.to_string(),
        &BlockId::from_u128(8).to_string(),
    );
    for other in [other_block, text.replace("\"version\":1", "\"version\":2")] {
        assert_ne!(other, text);
        std::fs::write(fixture.document(), other).unwrap();
        let again = fixture.open().await.file("index", &fixture.file().await);
        assert_eq!(again.earlier().await, None);
    }
    std::fs::write(fixture.document(), &text).unwrap();
    assert_eq!(left_open(&fixture.data, fixture.block).await, [upload(2)]);
}

#[tokio::test]
async fn documents_are_found_and_removed_with_what_a_crash_left_beside() {
    let fixture = Fixture::new().await;
    assert!(kept(&fixture.data).await.unwrap().is_empty());
    remove(&fixture.data, fixture.block).await.unwrap();
    let file = fixture.open().await.file("index", &fixture.file().await);
    file.keep(Some(&upload(1))).await;
    let partial = fixture
        .document()
        .with_extension("json.1-2-3.outrigger-partial");
    std::fs::write(&partial, "half").unwrap();
    let other = document_path(BlockId::from_u128(9));
    std::fs::write(fixture.scratch.path().join(&other), "x").unwrap();
    let both = [fixture.block, BlockId::from_u128(9)];
    assert_eq!(kept(&fixture.data).await.unwrap(), both.into());
    remove(&fixture.data, fixture.block).await.unwrap();
    assert_eq!(
        kept(&fixture.data).await.unwrap(),
        both[1..].iter().copied().collect()
    );
    assert!(!partial.exists() && !fixture.document().exists());
}

#[tokio::test]
async fn a_file_of_200_gib_is_kept_to_its_last_part() {
    let fixture = Fixture::new().await;
    let sparse = std::fs::File::create(fixture.scratch.path().join("index")).unwrap();
    sparse.set_len(200 << 30).unwrap();
    let size = fixture.file().await.size_bytes();
    let plan = PartPlan::new(size, NonZeroU64::new(8 << 20).unwrap());
    let count = u32::try_from(plan.count()).unwrap();
    let state = MultipartState {
        part_bytes: plan.part_bytes(),
        ..upload(10_000)
    };
    assert!(count <= 10_000 && state.part_bytes.get() * u64::from(count) >= 200 << 30);
    let file = fixture.open().await.file("index", &fixture.file().await);
    file.keep(Some(&state)).await;
    let again = fixture.open().await.file("index", &fixture.file().await);
    assert_eq!(again.earlier().await, Some(state));
    assert!(std::fs::metadata(fixture.document()).unwrap().len() < BYTES_MAX / 16);
}
