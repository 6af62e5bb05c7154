use std::fs;
use std::path::PathBuf;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn log(path: impl Into<PathBuf>) -> LogFile {
    LogFile::open(&LogDestination::File(path.into()), "access_log", Complaints::ToErrorLog).expect("it can be opened")
}

fn add(log: &LogFile, line: &str) {
    log.write(|buffer| buffer.extend_from_slice(line.as_bytes()));
}

#[test]
fn lines_of_all_threads_arrive_whole_and_in_their_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let log = log(&path);
    let (threads, lines) = (20, 2_000);
    thread::scope(|scope| {
        for thread in 0..threads {
            let log = &log;
            scope.spawn(move || (0..lines).for_each(|line| add(log, &format!("{thread} {line} {}\n", "x".repeat(50)))));
        }
    });
    assert!(log.flush(PATIENCE));
    assert_eq!((log.written() + log.dropped(), log.dropped()), (threads * lines, 0));
    let mut next = vec![0; threads as usize];
    for line in fs::read_to_string(&path).expect("text").lines() {
        let mut words = line.split(' ').map(|word| word.parse::<u64>());
        let (Some(Ok(thread)), Some(Ok(number))) = (words.next(), words.next()) else { panic!("{line}") };
        assert_eq!(next[thread as usize], number, "of thread {thread}");
        next[thread as usize] += 1;
    }
    assert!(next.iter().all(|count| *count == lines));
}

#[test]
fn what_is_written_is_there_without_being_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let log = log(&path);
    add(&log, "soon\n");
    let begun = Instant::now();
    while fs::read_to_string(&path).expect("text") != "soon\n" {
        assert!(begun.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(5));
    }
    add(&log, "last\n");
    drop(log);
    while fs::read_to_string(&path).expect("text") != "soon\nlast\n" {
        assert!(begun.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_file_that_was_moved_away_is_made_anew_and_no_line_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let log = log(&path);
    let count = 50_000;
    thread::scope(|scope| {
        scope.spawn(|| (0..count).for_each(|line| add(&log, &format!("{line}\n"))));
        for turn in 0..5 {
            thread::sleep(Duration::from_millis(5));
            fs::rename(&path, folder.path().join(format!("log.{turn}"))).expect("moved");
            log.reopen();
            assert!(log.flush(PATIENCE));
        }
    });
    assert!(log.flush(PATIENCE));
    let read = |name: String| fs::read_to_string(folder.path().join(name)).expect("text");
    let all: String = (0..5).map(|turn| read(format!("log.{turn}"))).chain([read("log".to_owned())]).collect();
    assert!(all.lines().map(|line| line.parse::<u64>().expect("a number")).eq(0..count));
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let log = log("/dev/full");
    let begun = Instant::now();
    let line = "x".repeat(1023) + "\n";
    // Three times what may wait.
    (0..3 * WAITING_MAX / 1024).for_each(|_| add(&log, &line));
    assert!(begun.elapsed() < PATIENCE, "nobody waits for it");
    let dropped = log.dropped() as usize * 1024;
    // What waits: the bound, the buffer that cannot be written, and the one that is full.
    let expected = 2 * WAITING_MAX - 4 * BUFFER_SIZE..2 * WAITING_MAX + 4 * BUFFER_SIZE;
    assert!(expected.contains(&dropped), "{dropped}");
    assert_eq!(log.written(), 0);
    assert!(!log.flush(Duration::from_millis(50)));
}

#[test]
fn what_waited_for_a_reader_is_written_when_there_is_one() {
    use std::io::Read;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo");
    assert!(made.success());
    assert!(
        LogFile::open(&LogDestination::File(path.clone()), "access_log", Complaints::ToErrorLog).is_err(),
        "nobody reads it"
    );
    // Opened for both, so that nobody waits for the other.
    let mut reader = OpenOptions::new().read(true).write(true).open(&path).expect("a reader");
    let log = log(&path);
    let line = "y".repeat(999) + "\n";
    let count = 3 * WAITING_MAX / 1000;
    (0..count).for_each(|_| add(&log, &line));
    let kept = count as u64 - log.dropped();
    assert!(log.dropped() > 0 && kept > 0);
    let mut text = vec![0; kept as usize * 1000];
    reader.read_exact(&mut text).expect("all that waited");
    assert!(text.chunks(1000).all(|one| one == line.as_bytes()), "lines are whole");
    assert!(log.flush(PATIENCE));
    assert_eq!(log.written(), kept);
}
