-- The records as commit 837dfd5 wrote them. KEY is filled in by the test.
create table schema_version (version bigint not null);
create table machines (
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
);
create table labels (
    machine bigint not null references machines (id) on delete cascade,
    name text not null,
    content text not null,
    primary key (machine, name)
);
create table macs (
    mac text primary key,
    machine bigint not null references machines (id) on delete cascade
);
create index macs_machine on macs (machine);
create table hardware (
    machine bigint primary key references machines (id) on delete cascade,
    report text not null
);
create table deployments (
    id bigint primary key,
    ordered bigint not null,
    image text not null,
    image_name text not null,
    wire_bytes bigint not null,
    demand text not null,
    is_open bigint not null
);
create table jobs (
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
);
create index jobs_deployment on jobs (deployment);
create index jobs_machine on jobs (machine);
create table events (
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
);
create index events_machine on events (machine, id);
create index events_deployment on events (deployment, id);
create index events_at on events (at);
create index events_progress on events (kind, machine, job, step);
create table leases (
    address text primary key,
    holder text not null,
    until bigint not null,
    state text not null
);
create table counters (
    name text primary key,
    last bigint not null
);
insert into schema_version (version) values (1);
insert into machines values (1, 'db-1', 'deployed', 0, 'lab', 'sn-1', null, null, 'a3b8c1d2-7f4e-4a90-9c36-5e1d0b72f8aa', 'boot-disk', null, 0, 1000000, 2000000, null);
insert into labels values (1, 'role', 'r1');
insert into macs values ('00:1b:21:00:00:01', 1);
insert into macs values ('00:1b:21:00:00:11', 1);
insert into hardware values (1, '{"version": 1, "reporter": "0.1.0", "key": "ed25519:KEY", "firmware": "uefi", "system": {"manufacturer": "", "product": "", "serial": "SN-1", "uuid": "a3b8c1d2-7f4e-4a90-9c36-5e1d0b72f8aa", "board_serial": "", "chassis_serial": "", "asset_tag": ""}, "cpu": {"architecture": "x86_64", "model": "", "threads": 4}, "memory_bytes": 1073741824, "disks": [{"name": "sda", "bus": "ata", "size": 1073741824, "sector_bytes": 512, "model": "", "serial": "D1", "wwn": "", "path": "", "rotational": false, "removable": false, "read_only": false, "contents": "bootable", "found": []}], "nics": [{"name": "eth0", "mac": "00:1b:21:00:00:01", "driver": "e1000e", "speed_mbit": null, "link": true, "address": null, "boot": true}, {"name": "eth1", "mac": "00:1b:21:00:00:11", "driver": "e1000e", "speed_mbit": null, "link": true, "address": null, "boot": false}], "devices": [], "name": null, "site": null, "truncated": []}');
insert into machines values (2, 'web-1', 'approved', 0, 'lab', null, null, null, null, 'boot-disk', null, 0, 1000000, 2000000, null);
insert into labels values (2, 'role', 'r2');
insert into macs values ('52:54:00:00:00:02', 2);
insert into hardware values (2, '{"version": 1, "reporter": "0.1.0", "key": "ed25519:KEY", "firmware": "uefi", "system": {"manufacturer": "", "product": "", "serial": "", "uuid": "", "board_serial": "", "chassis_serial": "", "asset_tag": ""}, "cpu": {"architecture": "x86_64", "model": "", "threads": 4}, "memory_bytes": 1073741824, "disks": [{"name": "sda", "bus": "ata", "size": 1073741824, "sector_bytes": 512, "model": "", "serial": "D2", "wwn": "", "path": "", "rotational": false, "removable": false, "read_only": false, "contents": "bootable", "found": []}], "nics": [{"name": "eth0", "mac": "52:54:00:00:00:02", "driver": "virtio_net", "speed_mbit": null, "link": true, "address": null, "boot": true}], "devices": [], "name": null, "site": null, "truncated": []}');
insert into machines values (3, 'lap-1', 'deployed', 0, 'lab', 'sn-3', null, null, '4c4c4544-0042-3510-8052-b4c04f4d4e32', 'boot-disk', null, 0, 1000000, 2000000, null);
insert into labels values (3, 'role', 'r3');
insert into macs values ('00:1b:21:00:00:03', 3);
insert into hardware values (3, '{"version": 1, "reporter": "0.1.0", "key": "ed25519:KEY", "firmware": "uefi", "system": {"manufacturer": "", "product": "", "serial": "SN-3", "uuid": "4c4c4544-0042-3510-8052-b4c04f4d4e32", "board_serial": "", "chassis_serial": "", "asset_tag": ""}, "cpu": {"architecture": "x86_64", "model": "", "threads": 4}, "memory_bytes": 1073741824, "disks": [{"name": "sda", "bus": "ata", "size": 1073741824, "sector_bytes": 512, "model": "", "serial": "D3", "wwn": "", "path": "", "rotational": false, "removable": false, "read_only": false, "contents": "bootable", "found": []}], "nics": [{"name": "eth0", "mac": "00:1b:21:00:00:03", "driver": "r8152", "speed_mbit": null, "link": true, "address": null, "boot": true}], "devices": [], "name": null, "site": null, "truncated": []}');
insert into machines values (4, 'clone-1', 'inspected', 0, 'lab', 'sn-4', null, null, '03020100-0504-0706-0809-0a0b0c0d0e0f', 'boot-disk', null, 0, 1000000, 2000000, null);
insert into labels values (4, 'role', 'r4');
insert into macs values ('00:1b:21:00:00:04', 4);
insert into hardware values (4, '{"version": 1, "reporter": "0.1.0", "key": "ed25519:KEY", "firmware": "uefi", "system": {"manufacturer": "", "product": "", "serial": "SN-4", "uuid": "03020100-0504-0706-0809-0a0b0c0d0e0f", "board_serial": "", "chassis_serial": "", "asset_tag": ""}, "cpu": {"architecture": "x86_64", "model": "", "threads": 4}, "memory_bytes": 1073741824, "disks": [{"name": "sda", "bus": "ata", "size": 1073741824, "sector_bytes": 512, "model": "", "serial": "D4", "wwn": "", "path": "", "rotational": false, "removable": false, "read_only": false, "contents": "bootable", "found": []}], "nics": [{"name": "eth0", "mac": "00:1b:21:00:00:04", "driver": "e1000e", "speed_mbit": null, "link": true, "address": null, "boot": true}], "devices": [], "name": null, "site": null, "truncated": []}');
insert into machines values (5, 'old-bios', 'inspected', 0, 'lab', null, null, null, 'd2c1b8a3-4e7f-904a-9c36-5e1d0b72f8ab', 'boot-disk', null, 0, 1000000, 2000000, null);
insert into labels values (5, 'role', 'r5');
insert into macs values ('00:1b:21:00:00:05', 5);
insert into hardware values (5, '{"version": 1, "reporter": "0.1.0", "key": "ed25519:KEY", "firmware": "uefi", "system": {"manufacturer": "", "product": "", "serial": "", "uuid": "d2c1b8a3-4e7f-904a-9c36-5e1d0b72f8ab", "board_serial": "", "chassis_serial": "", "asset_tag": ""}, "cpu": {"architecture": "x86_64", "model": "", "threads": 4}, "memory_bytes": 1073741824, "disks": [{"name": "sda", "bus": "ata", "size": 1073741824, "sector_bytes": 512, "model": "", "serial": "D5", "wwn": "", "path": "", "rotational": false, "removable": false, "read_only": false, "contents": "bootable", "found": []}], "nics": [{"name": "eth0", "mac": "00:1b:21:00:00:05", "driver": "e1000e", "speed_mbit": null, "link": true, "address": null, "boot": true}], "devices": [], "name": null, "site": null, "truncated": []}');
insert into machines values (6, 'ct-1', 'approved', 0, 'lab', null, null, null, null, 'load', null, 0, 1000000, 2000000, null);
insert into hardware values (6, '{"version": 1, "reporter": "0.1.0", "key": "ed25519:KEY", "firmware": "none", "system": {"manufacturer": "", "product": "", "serial": "", "uuid": "", "board_serial": "", "chassis_serial": "", "asset_tag": ""}, "cpu": {"architecture": "x86_64", "model": "", "threads": 4}, "memory_bytes": 1073741824, "disks": [{"name": "sda", "bus": "ata", "size": 1073741824, "sector_bytes": 512, "model": "", "serial": "", "wwn": "", "path": "", "rotational": false, "removable": false, "read_only": false, "contents": "bootable", "found": []}], "nics": [], "devices": [], "name": "ct-1", "site": null, "truncated": []}');
insert into machines values (7, 'spare', 'inspected', 0, 'local', null, null, null, null, 'load', null, 0, 1000000, 2000000, null);
insert into macs values ('00:1b:21:00:00:07', 7);
insert into counters values ('machine', 7), ('job', 0);
