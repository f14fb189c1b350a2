//! Read-only maps of whole files, which survive that a file is cut short under them.
//!
//! Reading a mapped page that its file has no longer, or that the disk can't deliver, raises
//! SIGBUS, which ends a process. Here a handler looks whether the address lies in one of our maps.
//! If so, it puts pages of zeros in place of everything from there to the map's end, marks the map
//! as broken, and lets the reader go on; [`MappedFile::check`] tells of it. Whatever was read from
//! a map leaves the process only after a check. Every other SIGBUS goes to the handler that was
//! there before, which for Rust's own and for none at all means the end of the process.
//!
//! What the handler reads is a fixed array of atomics ([`Registry`]): no lock, no allocation.
//! A cut within the file's last page raises nothing: the kernel shows that page's rest as zeros.
//! That is for the checksums of the format to see.
#![expect(
    unsafe_code,
    reason = "a map is memory that others may change, and its faults arrive as signals"
)]

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use libc::{c_int, c_void, sigaction, siginfo_t};
use memmap2::{Advice, Mmap, MmapOptions};

use super::residency::page_bytes;
use super::{Dir, DiskError};

/// The most maps at a time, in the whole process. The kernel allows 65,530 unless told otherwise
/// (`vm.max_map_count`), and allocators and thread stacks need their share.
const MAPS_MAX: usize = 16_384;

/// A whole regular file in memory, for reading. It holds no descriptor. Reading may wait for a
/// disk, so it belongs on blocking threads.
pub struct MappedFile {
    /// `None` for an empty file, which can't be mapped.
    mapped: Option<Mapped>,
    path: PathBuf,
}

/// Drop order matters: the place in the registry must be given back while the addresses are still
/// ours, otherwise a fault in whatever gets them next would be taken for one of this map.
struct Mapped {
    place: Place<'static>,
    map: Mmap,
}

/// A read from a map met pages that its file does not have.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the file was cut short, or its disk failed, while it was read")]
struct Broken;

// === impl MappedFile ===

impl Dir {
    /// Maps the regular file `relative` as long as it is now. Blocks.
    ///
    /// # Errors
    /// Where it can't be opened or is no regular file, where the process has no addresses or no
    /// places for maps left, or SIGBUS can't be handled.
    pub fn map_blocking(&self, relative: impl AsRef<Path>) -> Result<MappedFile, DiskError> {
        self.call_blocking("map", relative.as_ref(), |root, relative| {
            let file = root.open_file(relative)?;
            let length = usize::try_from(file.size_bytes()).map_err(io::Error::other)?;
            let path = file.path().to_owned();
            let mapped = match length {
                0 => None,
                _ => Some(Mapped::new(file.descriptor.as_fd(), length)?),
            };
            Ok(MappedFile { mapped, path })
        })
    }
}

impl MappedFile {
    /// The content. It may change while it is looked at, if someone writes to the file, so nothing
    /// that was once found to be so may be relied on for memory safety.
    pub fn bytes(&self) -> &[u8] {
        self.mapped.as_ref().map_or(&[], |mapped| &mapped.map)
    }

    /// Expect reads here and there: the kernel then reads no neighbouring pages ahead.
    pub fn advise_random(&self) {
        self.advise(Advice::Random, 0..self.bytes().len());
    }

    /// Expect that `range` will be read: the kernel starts to read its pages. What lies past the
    /// end is left out.
    pub fn will_need(&self, range: Range<usize>) {
        self.advise(Advice::WillNeed, range);
    }

    /// Whether everything read so far was the file's.
    ///
    /// # Errors
    /// Where the file was cut short, or its disk failed: zeros were read instead.
    pub fn check(&self) -> Result<(), DiskError> {
        match &self.mapped {
            Some(mapped) if mapped.place.is_broken() => {
                let source = io::Error::new(io::ErrorKind::UnexpectedEof, Broken);
                Err(DiskError::new("read", &self.path, source))
            }
            _ => Ok(()),
        }
    }

    /// The path it was opened by, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn advise(&self, advice: Advice, range: Range<usize>) {
        let Some(mapped) = &self.mapped else {
            return;
        };
        let pages = whole_pages(range, mapped.map.len(), mapped.place.registry.page());
        if pages.is_empty() {
            return;
        }
        let advised = mapped.map.advise_range(advice, pages.start, pages.len());
        if let Err(error) = advised {
            // Only speed is lost.
            tracing::trace!(path = %self.path.display(), err = %error, "madvise was refused");
        }
    }
}

impl fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedFile")
            .field("path", &self.path)
            .field("size_bytes", &self.bytes().len())
            .finish_non_exhaustive()
    }
}

/// `range`, clipped to `length` and begun at a page.
fn whole_pages(range: Range<usize>, length: usize, page: usize) -> Range<usize> {
    let end = range.end.min(length);
    let start = range.start.min(end);
    if start == end {
        return 0..0;
    }
    start - start % page..end
}

impl Mapped {
    fn new(file: std::os::fd::BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        guard()?;
        let mut options = MmapOptions::new();
        options.len(length);
        // SAFETY: the obligation of `map` is that nobody changes the file in a way that Rust's
        // rules about shared references forbid. A block's files are never written to after they
        // have their names (contract `tsdb.md` §1), but nothing can keep another process from it.
        // So the bytes are only ever given out as `&[u8]`, for which every bit pattern is valid,
        // and `bytes` says that what is read twice may differ; the readers check every offset at
        // each use. Shrinking, which would raise SIGBUS, is handled by `guard`, called above.
        let map = unsafe { options.map(&file) }?;
        let start = map.as_ptr().addr();
        let Some(place) = MAPS.claim(start..start + length) else {
            return Err(io::Error::other(format!(
                "{MAPS_MAX} files are mapped, no more may be"
            )));
        };
        Ok(Self { place, map })
    }
}

// === impl Registry ===

/// Which addresses are ours, for a signal handler to look up.
struct Registry<'a> {
    slots: &'a [Slot],
    /// How many slots, from the first, were ever used: the handler looks no further.
    used: AtomicUsize,
    /// The bytes of a page; 0 until it was asked for.
    page: AtomicUsize,
    /// Slots below `used` that are free. Only for those who claim and give back.
    free: Mutex<Vec<usize>>,
}

/// The addresses of one map. Writers, who hold the registry's lock, make `version` odd, change the
/// range, and make it even again, so that a reader sees whether start and end belong together.
struct Slot {
    version: AtomicUsize,
    start: AtomicUsize,
    end: AtomicUsize,
    broken: AtomicBool,
}

/// A claimed slot.
struct Place<'a> {
    registry: &'a Registry<'a>,
    slot: usize,
}

static SLOTS: [Slot; MAPS_MAX] = [const { Slot::free() }; MAPS_MAX];
/// A process has one handler of SIGBUS, so there is one registry.
static MAPS: Registry<'static> = Registry::new(&SLOTS);

impl<'a> Registry<'a> {
    const fn new(slots: &'a [Slot]) -> Self {
        Self {
            slots,
            used: AtomicUsize::new(0),
            page: AtomicUsize::new(0),
            free: Mutex::new(Vec::new()),
        }
    }

    /// Registers the map at `addresses`; `None` where there are as many as may be.
    fn claim(&'a self, addresses: Range<usize>) -> Option<Place<'a>> {
        let end = addresses.end.next_multiple_of(self.page());
        let mut free = self.free();
        let used = self.used.load(SeqCst);
        let slot = free.pop().unwrap_or(used);
        let claimed = self.slots.get(slot)?;
        claimed.set(addresses.start..end);
        self.used.store(used.max(slot + 1), SeqCst);
        drop(free);
        Some(Place {
            registry: self,
            slot,
        })
    }

    fn free(&self) -> MutexGuard<'_, Vec<usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self) -> usize {
        match self.page.load(SeqCst) {
            0 => {
                let page = usize::try_from(page_bytes()).unwrap_or(4096);
                self.page.store(page, SeqCst);
                page
            }
            page => page,
        }
    }

    /// Called by the handler of a fault at `address`: where that is in a map, marks the map as
    /// broken and has its missing pages replaced by `cover`, which tells whether it could.
    fn heal(&self, address: usize, cover: impl Fn(Range<usize>) -> bool) -> bool {
        let used = self.used.load(SeqCst);
        // Not `self.page()`, whose system call has no place in a handler. There is no claim
        // without it.
        let page = self.page.load(SeqCst).max(1);
        for slot in self.slots.iter().take(used) {
            // A slot that changes right now is not that of the fault: whoever faulted borrows its
            // map, so that one is not being dropped, and it was handed out after its claim.
            let Some(addresses) = slot.addresses() else {
                continue;
            };
            if !addresses.contains(&address) {
                continue;
            }
            // Before any zero can be seen.
            slot.broken.store(true, SeqCst);
            let missing = address - address % page..addresses.end;
            // The kernel may be out of map areas, for a map that is half replaced counts as two.
            return cover(missing) || cover(addresses);
        }
        false
    }
}

impl Slot {
    const fn free() -> Self {
        Self {
            version: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        }
    }

    /// The caller holds the registry's lock.
    fn set(&self, addresses: Range<usize>) {
        self.version.fetch_add(1, SeqCst);
        self.start.store(addresses.start, SeqCst);
        self.end.store(addresses.end, SeqCst);
        self.broken.store(false, SeqCst);
        self.version.fetch_add(1, SeqCst);
    }

    /// `None` where they are being changed.
    fn addresses(&self) -> Option<Range<usize>> {
        let version = self.version.load(SeqCst);
        let addresses = self.start.load(SeqCst)..self.end.load(SeqCst);
        let whole = version.is_multiple_of(2) && self.version.load(SeqCst) == version;
        whole.then_some(addresses)
    }
}

impl Place<'_> {
    fn is_broken(&self) -> bool {
        let slot = self.registry.slots.get(self.slot);
        slot.is_some_and(|slot| slot.broken.load(SeqCst))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut free = self.registry.free();
        if let Some(slot) = self.registry.slots.get(self.slot) {
            slot.set(0..0);
            free.push(self.slot);
        }
    }
}

// === the signal ===

/// What handled SIGBUS before.
static PREVIOUS: OnceLock<sigaction> = OnceLock::new();

/// Installs the handler, at the first call.
fn guard() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*installed {
        // The handler may run as soon as it is there, so what it needs comes first.
        let previous = disposition()?;
        PREVIOUS.get_or_init(|| previous);
        let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = on_sigbus;
        let mut action = previous;
        action.sa_sigaction = handler as *const () as usize;
        // SA_ONSTACK: a thread may have little stack left. Without SA_NODEFER a fault in the
        // handler itself ends the process at once instead of calling the handler again.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: sigemptyset writes one signal set, which is ours.
        unsafe { libc::sigemptyset(&raw mut action.sa_mask) };
        set_disposition(&action)?;
        *installed = true;
    }
    Ok(())
}

/// What SIGBUS does now.
fn disposition() -> io::Result<sigaction> {
    let mut action = MaybeUninit::<sigaction>::zeroed();
    // SAFETY: sigaction reads nothing where its second argument is null, and writes one struct of
    // its type to the third, which lives on this stack until it returns.
    let answer = unsafe { sigaction(libc::SIGBUS, ptr::null(), action.as_mut_ptr()) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above succeeded and so filled it in; all zeros are a valid value as well.
    Ok(unsafe { action.assume_init() })
}

fn set_disposition(action: &sigaction) -> io::Result<()> {
    // SAFETY: sigaction reads one struct, borrowed for the call, and writes nothing where its
    // third argument is null. The struct is the default action, or was filled in by the kernel and
    // given a handler that has the signature SA_SIGINFO asks for and only makes calls that are
    // safe in signal handlers.
    let answer = unsafe { sigaction(libc::SIGBUS, action, ptr::null_mut()) };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs in the thread that faulted, between two of its instructions: no lock, no allocation.
extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a handler installed with SA_SIGINFO a valid `siginfo_t`, which
    // lives until the handler returns and is changed by nobody.
    let told = unsafe { &*info };
    // Above 0 the kernel tells of a fault, otherwise a process sent the signal.
    let is_fault = told.si_code > 0;
    if is_fault {
        // SAFETY: reads the address, a member that the kernel fills in for every fault.
        let address = unsafe { told.si_addr() }.addr();
        let errno = errno();
        let healed = MAPS.heal(address, cover_with_zeros);
        set_errno(errno);
        if healed {
            return;
        }
    }
    pass_on(signal, info, context, is_fault);
}

/// Puts pages of zeros at `addresses`, in place of what is there.
fn cover_with_zeros(addresses: Range<usize>) -> bool {
    let at = ptr::with_exposed_provenance_mut::<c_void>(addresses.start);
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: MAP_FIXED replaces what is mapped at these addresses, so they must be ours alone:
    // they are whole pages of one registered map, which stays mapped while it is registered
    // (`Mapped` gives its place back first), and which the interrupted reader borrows. The new
    // pages can be read as the old ones could. mmap is one system call and takes no lock of libc.
    let covered = unsafe { libc::mmap(at, addresses.len(), libc::PROT_READ, flags, -1, 0) };
    covered == at
}

/// Gives a signal that is not ours to whatever had it before.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void, is_fault: bool) {
    let previous = PREVIOUS.get();
    match previous.map_or(libc::SIG_DFL, |previous| previous.sa_sigaction) {
        libc::SIG_IGN if !is_fault => return,
        // The kernel ends a process that ignores a fault.
        libc::SIG_DFL | libc::SIG_IGN => restore_default(),
        handler => call(
            handler,
            previous.is_some_and(|previous| previous.sa_flags & libc::SA_SIGINFO != 0),
            (signal, info, context),
        ),
    }
    // The instruction that faulted is run again, and meets what the handler left. A signal that
    // was sent does not come again by itself, so where it now has its default action, as Rust's
    // handler of stack overflows arranges, it is sent once more.
    let is_default = disposition().is_ok_and(|now| now.sa_sigaction == libc::SIG_DFL);
    if !is_fault && is_default {
        // SAFETY: raise takes no pointer and is safe in signal handlers.
        unsafe { libc::raise(signal) };
    }
}

fn restore_default() {
    // SAFETY: all zeros are a valid `sigaction`: the default action, no flags, an empty mask.
    let default = unsafe { MaybeUninit::<sigaction>::zeroed().assume_init() };
    if set_disposition(&default).is_err() {
        // SAFETY: abort takes nothing, never returns, and is safe in signal handlers.
        unsafe { libc::abort() };
    }
}

/// Calls an earlier handler as the kernel would.
fn call(
    handler: usize,
    takes_info: bool,
    (signal, info, context): (c_int, *mut siginfo_t, *mut c_void),
) {
    let handler = ptr::with_exposed_provenance::<()>(handler);
    if takes_info {
        // SAFETY: sigaction(2) gave this address as that of a handler with SA_SIGINFO, which has
        // this signature, and a handler stays valid for the life of the process.
        let handler = unsafe {
            std::mem::transmute::<*const (), extern "C" fn(c_int, *mut siginfo_t, *mut c_void)>(
                handler,
            )
        };
        handler(signal, info, context);
    } else {
        // SAFETY: as above, for a handler without SA_SIGINFO, which takes the number alone.
        let handler = unsafe { std::mem::transmute::<*const (), extern "C" fn(c_int)>(handler) };
        handler(signal);
    }
}

fn errno() -> c_int {
    // SAFETY: gives the address of the calling thread's errno, which is valid while it runs.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above; nobody else reads or writes it.
    unsafe { *place }
}

/// The interrupted code may be about to read it.
fn set_errno(value: c_int) {
    // SAFETY: gives the address of the calling thread's errno, which is valid while it runs.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above; nobody else reads or writes it.
    unsafe { *place = value };
}

/// A map that the handler does not know, for the tests that must not survive it.
#[cfg(test)]
fn unregistered(file: &std::fs::File) -> Mmap {
    guard().unwrap();
    // SAFETY: as in `Mapped::new`, but for shrinking, of which the process is meant to die.
    unsafe { Mmap::map(file) }.unwrap()
}

#[cfg(test)]
mod tests;
