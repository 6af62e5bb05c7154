//! The database: a SQLite file that several processes share, or PostgreSQL.
//!
//! The queries are the same for both. What differs is here and in [`orders`](crate::orders): how a transaction begins
//! that is going to write, and how a list of rows is passed as one JSON parameter.

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

/// Connections of one process for reading.
const READERS: u32 = 4;

/// Connections of one process for writing to PostgreSQL. SQLite has one writer at a time anyway, so there one
/// connection is enough, and those who wait for it wait in order.
const WRITERS: u32 = 4;

/// The longest wait for a connection, for a lock of SQLite, and for a statement of PostgreSQL. Below the edge's timeout
/// for a delivery (5 s by default), so that it hears what is wrong.
const PATIENCE: Duration = Duration::from_secs(4);

/// The longest that the start waits for other processes that start at the same moment.
const START_PATIENCE: Duration = Duration::from_secs(15);

/// Which SQL is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// An open database whose tables are as this program needs them.
#[derive(Debug, Clone)]
pub struct Database {
    dialect: Dialect,
    readers: AnyPool,
    writers: AnyPool,
}

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is of another kind.
    #[error("--database must be sqlite:FILE or postgres://..., is {0:?}")]
    Unknown(String),
    /// Several processes and connections could not share it.
    #[error("--database must name a file; SQLite in memory cannot be shared by connections")]
    InMemory,
    /// The folder of the file cannot be made.
    #[error("cannot make the folder {folder}: {error}")]
    Folder {
        /// Of the file.
        folder: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// It cannot be opened or reached.
    #[error("the database cannot be opened: {0}")]
    Database(#[from] sqlx::Error),
    /// It did not answer, or other processes that started at the same time were not done in time.
    #[error("the database cannot be opened: no answer in {START_PATIENCE:?}")]
    Silent,
    /// Its tables cannot be brought up to date.
    #[error("the database cannot be migrated: {0}")]
    Migration(#[from] MigrateError),
}

impl Database {
    /// Opens it, makes the file if there is none, and brings its tables up to date. Any number of processes may do so
    /// at once.
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
            // A URL may hold a password, so no more of it is shown than its kind.
            return Err(OpenError::Unknown(url.split(':').next().unwrap_or_default().to_owned()));
        };
        install_default_drivers();
        let options = AnyConnectOptions::from_str(url)?;
        let pool = |connections| {
            AnyPoolOptions::new().max_connections(connections).acquire_timeout(PATIENCE).after_connect(
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

    /// For queries that change nothing.
    pub(crate) fn read(&self) -> &AnyPool {
        &self.readers
    }

    /// Begins a transaction that is going to write. With SQLite it has the file's write lock from the start: one that
    /// reads first and wants to write later fails at once if another wrote in between.
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
    tokio::time::timeout(START_PATIENCE, prepared).await.unwrap_or(Err(OpenError::Silent))
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
    // A file keeps its journal's mode, so it is set only here. While one process changes it, others hear "database is
    // locked" at once, whatever their timeout.
    let options = options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal).busy_timeout(START_PATIENCE);
    let begun = std::time::Instant::now();
    let mut connection: SqliteConnection = loop {
        match options.connect().await {
            Ok(connection) => break connection,
            Err(error) if is_busy(&error) && begun.elapsed() < START_PATIENCE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error.into()),
        }
    };
    // Migrations of SQLite take no lock by themselves. All of them in one writing transaction are one step.
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
    // Holds an advisory lock of PostgreSQL until it is done.
    POSTGRES.run(&mut connection).await?;
    connection.close().await?;
    Ok(())
}
