//! The database: a SQLite file that several processes share, or PostgreSQL.
//!
//! Both use the same queries. Only two things differ: how a writing transaction begins (here), and how a list of rows
//! is passed as one JSON parameter ([`orders`](crate::orders)).

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, install_default_drivers};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode};
use sqlx::{Any, AnyPool, ConnectOptions, Connection, Executor, Transaction};

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// Read connections of one process.
const READERS: u32 = 4;

/// Write connections of one process to PostgreSQL. SQLite allows one writer at a time: one connection is enough, and
/// its pool serves waiting tasks in order.
const WRITERS: u32 = 4;

/// Timeout for a pool connection, a lock of SQLite and a statement of PostgreSQL. Shorter than the edge's delivery
/// timeout (5 s by default): the edge receives the error instead of a timeout.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Startup timeout, which includes waiting for other processes that start at the same time.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// The SQL dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// An open database with migrated tables.
#[derive(Debug, Clone)]
pub struct Database {
    dialect: Dialect,
    readers: AnyPool,
    writers: AnyPool,
}

/// Why the database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL has another scheme.
    #[error("--database must be sqlite:FILE or postgres://..., is {0:?}")]
    Unknown(String),
    /// Connections and processes cannot share a database in memory.
    #[error("--database must name a file; connections cannot share a SQLite database in memory")]
    InMemory,
    /// The folder of the file cannot be created.
    #[error("cannot create the folder {folder}: {error}")]
    Folder {
        /// The folder.
        folder: String,
        /// The system's error.
        error: std::io::Error,
    },
    /// The file cannot be opened, or the server cannot be reached.
    #[error("cannot open the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The database did not respond in time, or another process held its lock for too long.
    #[error("cannot open the database: no response within {START_TIMEOUT:?}")]
    Silent,
    /// A migration failed.
    #[error("cannot migrate the database: {0}")]
    Migration(#[from] MigrateError),
}

impl Database {
    /// Opens the database, creates the file if it is missing, and runs migrations. Several processes can do so at the
    /// same time.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        let dialect = if url.starts_with("sqlite:") {
            in_time(prepare_sqlite(url)).await?;
            Dialect::Sqlite
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            in_time(prepare_postgres(url)).await?;
            Dialect::Postgres
        } else {
            // A URL can contain a password: show only its scheme.
            return Err(OpenError::Unknown(url.split(':').next().unwrap_or_default().to_owned()));
        };
        install_default_drivers();
        let options = AnyConnectOptions::from_str(url)?;
        let pool = |connections| {
            AnyPoolOptions::new().max_connections(connections).acquire_timeout(TIMEOUT).after_connect(
                move |connection, _| {
                    Box::pin(async move {
                        match dialect {
                            Dialect::Sqlite => connection.execute("PRAGMA busy_timeout = 4000").await?,
                            Dialect::Postgres => connection.execute("SET statement_timeout = '4s'").await?,
                        };
                        Ok(())
                    })
                },
            )
        };
        let writers = if dialect == Dialect::Sqlite { 1 } else { WRITERS };
        Ok(Self {
            dialect,
            readers: pool(READERS).connect_with(options.clone()).await?,
            writers: pool(writers).connect_with(options).await?,
        })
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The pool for read-only queries.
    pub(crate) fn read(&self) -> &AnyPool {
        &self.readers
    }

    /// Begins a transaction that writes. With SQLite it takes the write lock at once: a transaction that reads first
    /// and writes later fails if another one wrote in between.
    pub(crate) async fn write(&self) -> sqlx::Result<Transaction<'static, Any>> {
        self.writers
            .begin_with(match self.dialect {
                Dialect::Sqlite => "BEGIN IMMEDIATE",
                Dialect::Postgres => "BEGIN",
            })
            .await
    }
}

async fn in_time(prepared: impl Future<Output = Result<(), OpenError>>) -> Result<(), OpenError> {
    tokio::time::timeout(START_TIMEOUT, prepared).await.unwrap_or(Err(OpenError::Silent))
}

async fn prepare_sqlite(url: &str) -> Result<(), OpenError> {
    let options = SqliteConnectOptions::from_str(url)?;
    let file = options.get_filename().to_owned();
    if file == Path::new(":memory:") || url.contains(":memory:") || url.contains("mode=memory") {
        return Err(OpenError::InMemory);
    }
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .map_err(|error| OpenError::Folder { folder: folder.display().to_string(), error })?;
    }
    // The journal mode is stored in the file, so it is set only here. While one process changes it, others get
    // "database is locked" immediately, regardless of their timeout.
    let options = options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal).busy_timeout(START_TIMEOUT);
    let begun = std::time::Instant::now();
    let mut connection: SqliteConnection = loop {
        match options.connect().await {
            Ok(connection) => break connection,
            Err(error) if is_busy(&error) && begun.elapsed() < START_TIMEOUT => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    // SQLite migrations take no lock. One writing transaction makes them atomic.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    SQLITE.run(&mut *transaction).await?;
    transaction.commit().await?;
    connection.close().await?;
    Ok(())
}

fn is_busy(error: &sqlx::Error) -> bool {
    // SQLITE_BUSY and its extended codes have 5 in their lowest byte.
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}

async fn prepare_postgres(url: &str) -> Result<(), OpenError> {
    let mut connection: PgConnection = PgConnectOptions::from_str(url)?.connect().await?;
    // Holds a PostgreSQL advisory lock until the migrations are done.
    POSTGRES.run(&mut connection).await?;
    connection.close().await?;
    Ok(())
}
