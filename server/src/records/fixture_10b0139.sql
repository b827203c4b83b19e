-- The records as commit 10b0139 wrote them: relays in every state, and staged images. Never made anew, only added to.
CREATE TABLE counters (
    name text primary key,
    last bigint not null
);
INSERT INTO "counters" VALUES('stage',3);
CREATE TABLE deployments (
    id bigint primary key,
    ordered bigint not null,
    image text not null,
    image_name text not null,
    wire_bytes bigint not null,
    demand text not null,
    is_open bigint not null
);
CREATE TABLE events (
    id bigint primary key,
    at bigint not null,
    machine bigint,
    name text not null,
    deployment bigint,
    job bigint,
    attempt bigint,
    step text not null,
    kind text not null,
    content text not null,
    done bigint not null,
    total bigint not null,
    sources text
, by_machine bigint not null default 0);
INSERT INTO "events" VALUES(1,1700000999007,NULL,'relay attic',NULL,NULL,NULL,'decide','note','an admin: revoked',0,0,NULL,0);
CREATE TABLE frozen (
    since bigint not null,
    reason text
);
CREATE TABLE hardware (
    machine bigint primary key references machines (id) on delete cascade,
    report text not null
);
CREATE TABLE jobs (
    id bigint primary key,
    deployment bigint not null references deployments (id),
    machine bigint not null references machines (id) on delete cascade,
    state text not null,
    attempt bigint not null,
    boot_key text,
    last_step text,
    confirm_ms bigint,
    deadline bigint,
    target text,
    step text,
    done bigint not null,
    total bigint not null,
    sources text not null,
    sealed bigint not null,
    cause text,
    changed bigint not null
, marks text, disk text, machine_before text);
CREATE TABLE labels (
    machine bigint not null references machines (id) on delete cascade,
    name text not null,
    content text not null,
    primary key (machine, name)
);
CREATE TABLE leases (
    address text primary key,
    holder text not null,
    until bigint not null,
    state text not null
);
CREATE TABLE machines (
    id bigint primary key,
    name text,
    state text not null,
    held bigint not null,
    site text not null,
    system_serial text,
    chassis_serial text,
    board_serial text,
    uuid text,
    rest text not null,
    boot_key text,
    boot_through bigint not null,
    first_seen bigint not null,
    last_seen bigint not null,
    deployed_image text
, boot_since bigint, doubts text);
CREATE TABLE marks (
    mac text not null,
    machine bigint not null references machines (id) on delete cascade,
    weak bigint not null,
    primary key (mac, machine)
);
CREATE TABLE relays (
    id bigint primary key,
    name text not null,
    site text not null,
    invitation text not null,
    invited bigint not null,
    expires bigint not null,
    relay_key text,
    enrolled bigint,
    revoked bigint,
    version text,
    last_seen bigint
);
INSERT INTO "relays" VALUES(1,'branch-1','branch','ed25519:70df9e2279adbec6d12bf2921184c9222eb24ed852005bf640139f52e59cd9ae',1700000010007,1700086410007,'ed25519:17cb79fb2b4120f2b1ec65e4198d6e08b28e813feb01e4a400839b85e18080ce',1700000020007,NULL,'0.1.0-"a''b" ä',1700000900007);
INSERT INTO "relays" VALUES(2,'branch-2','branch','ed25519:f95c6a5dff031fac7b1a6a54b6610caeb83b39f7e8a66be16ff5faa4a511ed2d',1700000011007,1700086411007,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "relays" VALUES(3,'attic','10.9.8.0/24','ed25519:3f0dda81e6abbcc5f17c359df8517177769d2dfff3d4ce942e7ce9a82dfb0db2',1700000012007,1700086412007,'ed25519:a6d2455ea3a5771aba9fcb037924114c92f9f325049f6b4269e739d9048bb869',1700000030007,1700000040007,'0.1.0',1700000035007);
INSERT INTO "relays" VALUES(4,'withdrawn','branch','ed25519:677a74d964e4a84ffa5025a8b5537b5c4a37ad6d146e854783ac734684a207c4',1700000013007,1700086413007,NULL,NULL,1700000050007,NULL,NULL);
INSERT INTO "relays" VALUES(7,'attic','10.9.8.0/24','ed25519:22fc297792f0b6ffc0bfcfdb7edb0c0aa14e025a365ec0e342e86e3829cb74b6',1700000016007,1700086416007,'ed25519:a6d2455ea3a5771aba9fcb037924114c92f9f325049f6b4269e739d9048bb869',1700000060007,NULL,'0.1.0',NULL);
CREATE TABLE schema_version (version bigint not null);
INSERT INTO "schema_version" VALUES(1);
INSERT INTO "schema_version" VALUES(2);
INSERT INTO "schema_version" VALUES(3);
INSERT INTO "schema_version" VALUES(4);
INSERT INTO "schema_version" VALUES(5);
CREATE TABLE stages (
    id bigint primary key,
    image text not null,
    image_name text not null,
    wire_bytes bigint not null,
    site text not null,
    not_before bigint,
    rate bigint,
    ordered bigint not null
);
INSERT INTO "stages" VALUES(1,'230924e6c52c51a2f9c642524cbfec126ca7c85a6a421f04b4a752d770441d96','o''debian',268435456,'branch',NULL,NULL,1700000100007);
INSERT INTO "stages" VALUES(2,'230924e6c52c51a2f9c642524cbfec126ca7c85a6a421f04b4a752d770441d96','o''debian',268435456,'10.9.8.0/24',1700007200007,5000000,1700000100007);
CREATE INDEX jobs_deployment on jobs (deployment);
CREATE INDEX jobs_machine on jobs (machine);
CREATE INDEX events_machine on events (machine, id);
CREATE INDEX events_deployment on events (deployment, id);
CREATE INDEX events_at on events (at);
CREATE INDEX events_progress on events (kind, machine, job, step);
CREATE INDEX marks_machine on marks (machine);
