//! What must not come, as ARCHITECTURE.md lists it: which names are allowed only in which places. Each entry of that
//! list has one row here, and an exception that is no longer used fails the test.

use std::fs;

use super::sources::{Crate, Source, project};

/// What a row looks for.
#[derive(Debug, Clone, Copy)]
enum Name {
    /// A crate, or crates that begin with this and `_`.
    Crate(&'static str),
    /// Part of a path, such as `Instant::now`, after `use` trees are taken apart.
    Path(&'static str),
    /// An identifier, wherever it is.
    Word(&'static str),
    /// A module of this crate, however it is reached.
    Module(&'static [&'static str]),
}

struct Absence {
    /// The entry of ARCHITECTURE.md.
    rule: &'static str,
    names: &'static [Name],
    /// Files and folders below which the names are looked for.
    within: &'static [&'static str],
    /// Files and folders that may use them all the same.
    except: &'static [&'static str],
}

/// How the section of ARCHITECTURE.md begins.
const HEADING: &str = "## What must not come\n";

const ABSENCES: [Absence; 12] = [
    Absence {
        rule: "Only `src/stores/redis/` uses the Redis client.",
        names: &[Name::Crate("redis")],
        within: &["src"],
        except: &["src/stores/redis"],
    },
    Absence {
        rule: "Only `src/stores/embedded/` uses SQLite.",
        names: &[Name::Crate("rusqlite")],
        within: &["src"],
        except: &["src/stores/embedded"],
    },
    Absence {
        rule: "`src/sale/` and `src/ledger/` use neither Pingora nor axum. They see a `Head` and a body, never an HTTP \
               session.",
        names: &[Name::Crate("pingora"), Name::Crate("axum"), Name::Word("Session")],
        within: &["src/sale", "src/ledger"],
        except: &[],
    },
    Absence {
        rule: "`src/ledger/` uses no other family and does no I/O.",
        names: &[
            Name::Crate("tokio"),
            Name::Path("std::env"),
            Name::Path("std::fs"),
            Name::Path("std::io"),
            Name::Path("std::net"),
            Name::Path("std::process"),
            Name::Path("std::thread"),
        ],
        within: &["src/ledger"],
        except: &[],
    },
    Absence {
        rule: "`src/ledger/`, `src/http/` and `src/sale/gate.rs` read no clock; time is an argument. The ledger's \
               clock decides (Redis `TIME`, or that of the machine).",
        names: &[
            Name::Path("Instant::now"),
            Name::Path("SystemTime::now"),
            Name::Path("Timestamp::now"),
            Name::Path("Zoned::now"),
            Name::Word("elapsed"),
        ],
        within: &["src/ledger", "src/http", "src/sale/gate"],
        except: &[],
    },
    Absence {
        rule: "Only `src/server/upgrade.rs` and `src/observe/error_log.rs` call `std::env::var`. Other variables are \
               options of the command line.",
        names: &[Name::Path("env::var"), Name::Path("env::var_os"), Name::Path("env::vars")],
        within: &["src"],
        except: &["src/server/upgrade", "src/observe/error_log"],
    },
    Absence {
        rule: "Only `src/delivery.rs`, `src/limits/at_once.rs`, `src/observe/`, `src/sale/gate.rs`, \
               `src/stores/redis.rs` and `src/upstream.rs` use `Mutex` or `RwLock`. Other code reads snapshots and \
               atomics, which make no request wait for another.",
        names: &[Name::Word("Mutex"), Name::Word("RwLock")],
        within: &["src"],
        except: &[
            "src/delivery",
            "src/limits/at_once",
            "src/observe",
            "src/sale/gate",
            "src/stores/redis",
            "src/upstream",
        ],
    },
    Absence {
        rule: "The gate cannot sell: it has no ledger to ask. Only an answer of a ledger creates an order.",
        names: &[Name::Word("Ledger"), Name::Word("Bookkeeper"), Name::Word("Outbox"), Name::Word("Order")],
        within: &["src/sale/gate"],
        except: &[],
    },
    Absence {
        rule: "Pingora's traits are implemented only in `src/traffic/front/` and `src/traffic/proxy/`.",
        names: &[
            Name::Word("ProxyHttp"),
            Name::Word("ServerApp"),
            Name::Word("HttpServerApp"),
            Name::Word("HttpModule"),
            Name::Word("HttpModuleBuilder"),
            Name::Word("VirtualSocket"),
            Name::Word("Session"),
        ],
        within: &["src"],
        except: &["src/traffic/front", "src/traffic/proxy"],
    },
    Absence {
        rule: "Elsewhere, only `src/server/` starts Pingora, `src/delivery/post.rs` uses its connector, and \
               `src/upstream/check.rs` uses its health checks.",
        names: &[Name::Crate("pingora")],
        within: &["src"],
        except: &["src/traffic/front", "src/traffic/proxy", "src/server", "src/delivery/post", "src/upstream/check"],
    },
    Absence {
        rule: "Only `src/delivery/` knows what an order service is sent; `src/ledger/` only stores the position in the \
               log.",
        names: &[Name::Module(&["delivery", "wire"]), Name::Module(&["delivery", "signature"])],
        within: &["src"],
        except: &["src/delivery"],
    },
    Absence {
        rule: "Only `src/delivery/post.rs` connects to an order service.",
        names: &[Name::Word("Connector"), Name::Word("HttpPeer"), Name::Word("TcpStream"), Name::Crate("ureq")],
        within: &["src/delivery"],
        except: &["src/delivery/post"],
    },
];

#[test]
fn what_must_not_come_is_absent() {
    let tree = Crate::read("src", "spikegate", &[]);
    let mut faults = Vec::new();
    for Absence { rule, names, within, except } in &ABSENCES {
        let mut unused: Vec<_> = except.iter().collect();
        for place in *within {
            let sources: Vec<_> = tree.sources.iter().filter(|source| lies_in(source, place)).collect();
            if sources.is_empty() {
                faults.push(format!("ABSENCES: {place} does not exist: correct the row `{rule}`"));
            }
            for source in sources {
                let found = names.iter().filter_map(|name| Some((name, find(&tree, source, *name)?)));
                let excepted = except.iter().find(|place| lies_in(source, place));
                for (name, line) in found {
                    match excepted {
                        Some(place) => unused.retain(|other| *other != place),
                        None => faults.push(format!(
                            "{}:{line}: {name:?} must not be used here. {rule} Move the code, or change \
                             ARCHITECTURE.md and its row in tests/house/absences.rs",
                            source.file
                        )),
                    }
                }
            }
        }
        faults.extend(unused.iter().map(|place| {
            format!("ABSENCES: {place} uses none of {names:?} any more: delete it from the row `{rule}`")
        }));
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn each_absence_of_the_architecture_has_a_row() {
    let text = fs::read_to_string(project("ARCHITECTURE.md")).unwrap();
    let (_, section) = text.split_once(HEADING).expect("ARCHITECTURE.md has the section on what must not come");
    let section = section.split("\n## ").next().unwrap();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let named: Vec<_> = section.split("\n- ").skip(1).map(|entry| words(entry.split("\n\n").next().unwrap())).collect();
    let rows: Vec<_> = ABSENCES.iter().map(|absence| words(absence.rule)).collect();
    assert_eq!(named, rows, "ARCHITECTURE.md (left) and ABSENCES (right) must have the same entries in the same words");
}

/// Whether the source is `place`.rs or lies in the folder `place`.
fn lies_in(source: &Source, place: &str) -> bool {
    source.file.strip_prefix(place).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// The first line of the source that uses the name.
fn find(tree: &Crate, source: &Source, name: Name) -> Option<usize> {
    let mut named = source.named.iter();
    let found = match name {
        Name::Word(word) => return source.tokens.iter().find(|token| token.text == word).map(|token| token.line),
        Name::Crate(name) => named.find(|named| {
            let rest = tree.foreign(source, named).and_then(|foreign| foreign.strip_prefix(name));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        }),
        Name::Path(path) => {
            let path: Vec<_> = path.split("::").collect();
            named.find(|named| named.path.windows(path.len()).any(|part| part == path))
        }
        Name::Module(module) => named.find(|named| {
            let mut targets = tree.targets(&source.module, &named.path).into_iter();
            targets.any(|target| {
                target.len() >= module.len() && target.iter().zip(module).all(|(one, other)| one == other)
            })
        }),
    };
    found.map(|named| named.line)
}
