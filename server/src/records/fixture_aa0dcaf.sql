-- The records as commit aa0dcaf wrote them: every table, every state, every kind of event. Never made anew, only added to.
CREATE TABLE counters (
    name text primary key,
    last bigint not null
);
INSERT INTO "counters" VALUES('machine',9);
INSERT INTO "counters" VALUES('job',8);
CREATE TABLE deployments (
    id bigint primary key,
    ordered bigint not null,
    image text not null,
    image_name text not null,
    wire_bytes bigint not null,
    demand text not null,
    is_open bigint not null
);
INSERT INTO "deployments" VALUES(1,1700000010007,'230924e6c52c51a2f9c642524cbfec126ca7c85a6a421f04b4a752d770441d96','debian',268435456,'{"image":"debian","selection":{"machines":["web-1"],"labels":[]},"open":false,"limit":null,"disk":"","hostname":null,"ssh_keys":[],"user_data":null,"no_personalise":false,"no_confirm":false,"finish":"reboot","gather":null,"gather_seconds":null,"expires_seconds":null,"accept":[],"dry_run":false}',0);
INSERT INTO "deployments" VALUES(2,1700000010007,'230924e6c52c51a2f9c642524cbfec126ca7c85a6a421f04b4a752d770441d96','debian',268435456,'{"image":"debian","selection":{"machines":["rack1-[01-16]"],"labels":["role=web","rack=r1"]},"open":true,"limit":32,"disk":"bus=nvme,size>=100G","hostname":"{name}.example","ssh_keys":["ssh-ed25519 AAAA me"],"user_data":"#cloud-config\nä: ''b''\n","no_personalise":true,"no_confirm":true,"finish":"power-off","gather":4,"gather_seconds":60,"expires_seconds":0,"shown":{"image":"230924e6c52c51a2f9c642524cbfec126ca7c85a6a421f04b4a752d770441d96","machines":[{"machine":"m1","disk":{"bus":"ata","size":500107862016,"sector_bytes":512,"model":"Samsung SSD 870","serial":"S-sda","wwn":"naa.5002538f00000001","path":""}},{"machine":"m2","disk":null}]},"accept":["data-on-disk","ssh-keys-unused"],"dry_run":false}',1);
INSERT INTO "deployments" VALUES(3,1700000010007,'230924e6c52c51a2f9c642524cbfec126ca7c85a6a421f04b4a752d770441d96','debian',268435456,'{"image":"debian","selection":{"machines":["m3"],"labels":[]},"open":false,"limit":null,"disk":"","hostname":null,"ssh_keys":[],"user_data":null,"secrets_removed":true,"no_personalise":false,"no_confirm":false,"finish":"exit","gather":null,"gather_seconds":null,"expires_seconds":null,"accept":[],"dry_run":false}',0);
INSERT INTO "deployments" VALUES(4,1700000010007,'230924e6c52c51a2f9c642524cbfec126ca7c85a6a421f04b4a752d770441d96','debian',268435456,'{"image":"debian","selection":{"machines":["m4"],"labels":[]},"open":false,"limit":null,"disk":"","hostname":null,"ssh_keys":[],"user_data":{"base64":"/wD+"},"no_personalise":false,"no_confirm":false,"finish":"reboot","gather":null,"gather_seconds":null,"expires_seconds":null,"accept":[],"dry_run":false}',0);
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
INSERT INTO "events" VALUES(1,1700000101007,1,'web-1',1,1,2,'transfer','started','',0,0,NULL,1);
INSERT INTO "events" VALUES(2,1700000102007,1,'web-1',1,1,2,'transfer','progress','',5,9,'{"server":1,"peers":2,"server_chunks":0,"peer_chunks":0,"disk":0,"unsent":0,"uploaded":0,"net_ms":0,"disk_ms":0,"cpu_ms":0}',1);
INSERT INTO "events" VALUES(3,1700000103007,1,'web-1',1,1,2,'transfer','note','it''s a "note"; --',0,0,NULL,1);
INSERT INTO "events" VALUES(4,1700000104007,1,'web-1',1,1,2,'transfer','done','ok',0,0,NULL,1);
INSERT INTO "events" VALUES(5,1700000105007,1,'web-1',1,1,2,'transfer','failed','timeout',0,0,NULL,1);
INSERT INTO "events" VALUES(6,1700000106007,1,'web-1',1,1,2,'transfer','failed-last','no disk',0,0,NULL,0);
INSERT INTO "events" VALUES(7,1700000200007,NULL,'02:00:00:00:00:77',NULL,NULL,NULL,'power-on','note','asked',0,0,NULL,0);
INSERT INTO "events" VALUES(8,1700000200007,NULL,'02:00:00:00:00:77',NULL,NULL,NULL,'defragment','note','asked',0,0,NULL,0);
CREATE TABLE frozen (
    since bigint not null,
    reason text
);
INSERT INTO "frozen" VALUES(1700000300007,'audit');
CREATE TABLE hardware (
    machine bigint primary key references machines (id) on delete cascade,
    report text not null
);
INSERT INTO "hardware" VALUES(1,'{"version":1,"reporter":"0.1.0","key":"ed25519:d04ab232742bb4ab3a1368bd4615e4e6d0224ab71a016baf8520a332c9778737","firmware":"uefi-secure","system":{"manufacturer":"Maker","product":"Box 9","serial":"SYS1","uuid":"4c4c4544-0042-3510-8052-b4c04f4d3232","board_serial":"B1","chassis_serial":"C1","asset_tag":""},"cpu":{"architecture":"x86_64","model":"A CPU @ 1","threads":8},"memory_bytes":17179869184,"disks":[{"name":"sda","bus":"ata","size":500107862016,"sector_bytes":512,"model":"Samsung SSD 870","serial":"S-sda","wwn":"naa.5002538f00000001","path":"pci0000:00/0000:00:17.0/ata1/sda","rotational":false,"removable":false,"read_only":false,"contents":"bootable","found":["gpt","partition 1: vfat"],"volumes":[]},{"name":"nvme0n1","bus":"nvme","size":500107862016,"sector_bytes":4096,"model":"Samsung SSD 870","serial":"S-nvme0n1","wwn":"naa.5002538f00000001","path":"pci0000:00/0000:00:17.0/ata1/nvme0n1","rotational":false,"removable":false,"read_only":false,"contents":"blank","found":["gpt","partition 1: vfat"],"volumes":[]},{"name":"sdb","bus":"usb","size":500107862016,"sector_bytes":512,"model":"Samsung SSD 870","serial":"S-sdb","wwn":"naa.5002538f00000001","path":"pci0000:00/0000:00:17.0/ata1/sdb","rotational":false,"removable":true,"read_only":false,"contents":"partitioned","found":["gpt","partition 1: vfat"],"volumes":[]},{"name":"sdc","bus":"scsi","size":500107862016,"sector_bytes":512,"model":"Samsung SSD 870","serial":"S-sdc","wwn":"naa.5002538f00000001","path":"pci0000:00/0000:00:17.0/ata1/sdc","rotational":false,"removable":false,"read_only":false,"contents":"data","found":["gpt","partition 1: vfat"],"volumes":[]},{"name":"mmcblk0gp0","bus":"mmc","size":500107862016,"sector_bytes":512,"model":"Samsung SSD 870","serial":"S-mmcblk0gp0","wwn":"naa.5002538f00000001","path":"pci0000:00/0000:00:17.0/ata1/mmcblk0gp0","rotational":false,"removable":false,"read_only":false,"contents":"unreadable","found":["gpt","partition 1: vfat"],"volumes":[]}],"nics":[{"name":"eth0","mac":"52:54:00:00:00:01","driver":"e1000e","speed_mbit":1000,"link":true,"address":"10.0.0.7/24","boot":true,"usb":false},{"name":"eth1","mac":"52:54:00:00:00:02","driver":"e1000e","speed_mbit":1000,"link":true,"address":"10.0.0.7/24","boot":false,"usb":false}],"devices":[{"address":"0000:00:1f.6","modalias":"pci:v00008086d000015D7","class":131072,"driver":"e1000e"}],"name":"web-1","site":"lab","truncated":["devices: 3 of 600 left out"]}');
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
INSERT INTO "jobs" VALUES(1,1,1,'running',2,'ed25519:d04ab232742bb4ab3a1368bd4615e4e6d0224ab71a016baf8520a332c9778737','confirm',900000,1700002000007,'Samsung SSD 870, 466 GiB','transfer',5,9,'{"server":1,"peers":2,"server_chunks":3,"peer_chunks":4,"disk":5,"unsent":6,"uploaded":7,"net_ms":8,"disk_ms":9,"cpu_ms":10}',1,'a peer went away',1700000901007,'{"system_serial":"sys1","chassis_serial":"c1","board_serial":"b1","uuid":"44454c4c-4200-1035-8052-b4c04f4d3232","macs":["52:54:00:00:00:01","52:54:00:00:00:02"]}','{"bus":"ata","size":500107862016,"sector_bytes":512,"model":"Samsung SSD 870","serial":"S-sda","wwn":"naa.5002538f00000001","path":""}','approved');
INSERT INTO "jobs" VALUES(2,2,4,'ordered',0,NULL,NULL,0,NULL,NULL,'defragment',0,0,'{"server":0,"peers":0,"server_chunks":0,"peer_chunks":0,"disk":0,"unsent":0,"uploaded":0,"net_ms":0,"disk_ms":0,"cpu_ms":0}',0,NULL,1700000020007,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(3,3,3,'written',0,NULL,NULL,NULL,NULL,NULL,NULL,0,0,'{"server":0,"peers":0,"server_chunks":0,"peer_chunks":0,"disk":0,"unsent":0,"uploaded":0,"net_ms":0,"disk_ms":0,"cpu_ms":0}',0,NULL,1700000020007,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(4,3,4,'deployed',0,NULL,NULL,NULL,NULL,NULL,NULL,0,0,'{"server":0,"peers":0,"server_chunks":0,"peer_chunks":0,"disk":0,"unsent":0,"uploaded":0,"net_ms":0,"disk_ms":0,"cpu_ms":0}',0,NULL,1700000020007,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(5,3,5,'failed',0,NULL,NULL,NULL,NULL,NULL,NULL,0,0,'{"server":0,"peers":0,"server_chunks":0,"peer_chunks":0,"disk":0,"unsent":0,"uploaded":0,"net_ms":0,"disk_ms":0,"cpu_ms":0}',0,NULL,1700000020007,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(6,3,6,'refused',0,NULL,NULL,NULL,NULL,NULL,NULL,0,0,'{"server":0,"peers":0,"server_chunks":0,"peer_chunks":0,"disk":0,"unsent":0,"uploaded":0,"net_ms":0,"disk_ms":0,"cpu_ms":0}',0,NULL,1700000020007,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(7,3,7,'cancelled',0,NULL,NULL,NULL,NULL,NULL,NULL,0,0,'{"server":0,"peers":0,"server_chunks":0,"peer_chunks":0,"disk":0,"unsent":0,"uploaded":0,"net_ms":0,"disk_ms":0,"cpu_ms":0}',0,NULL,1700000020007,NULL,NULL,NULL);
CREATE TABLE labels (
    machine bigint not null references machines (id) on delete cascade,
    name text not null,
    content text not null,
    primary key (machine, name)
);
INSERT INTO "labels" VALUES(1,'rack','r''1 "q" ä');
INSERT INTO "labels" VALUES(1,'role','web');
CREATE TABLE leases (
    address text primary key,
    holder text not null,
    until bigint not null,
    state text not null
);
INSERT INTO "leases" VALUES('10.0.0.7','52:54:00:12:34:56',1700000600,'held');
INSERT INTO "leases" VALUES('10.0.0.8','hw0102',1700000600,'quarantined');
INSERT INTO "leases" VALUES('10.0.0.9','id0a0b',1700000600,'offered');
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
INSERT INTO "machines" VALUES(1,'web-1','deploying',0,'lab','sys1','c1','b1','44454c4c-4200-1035-8052-b4c04f4d3232 a3b8c1d2-7f4e-4a90-9c36-5e1d0b72f8aa','boot-disk','ed25519:d04ab232742bb4ab3a1368bd4615e4e6d0224ab71a016baf8520a332c9778737',12,1700000001007,1700000900007,'debian',1700000005007,'[]');
INSERT INTO "machines" VALUES(2,NULL,'inspected',1,'local',NULL,NULL,NULL,NULL,'load',NULL,0,1700000000007,1700000000007,NULL,NULL,'[{"other":"m1","shared":["serial number sys1"],"against":["UUID x instead of y"]},{"other":"m3","shared":["address 02:00:00:00:00:01"],"against":[]}]');
INSERT INTO "machines" VALUES(3,NULL,'discovered',0,'local',NULL,NULL,NULL,NULL,'load',NULL,0,1700000000007,1700000000007,NULL,NULL,'[]');
INSERT INTO "machines" VALUES(4,NULL,'approved',0,'local',NULL,NULL,NULL,NULL,'load',NULL,0,1700000000007,1700000000007,NULL,NULL,'[]');
INSERT INTO "machines" VALUES(5,NULL,'deployed',0,'local',NULL,NULL,NULL,NULL,'load',NULL,0,1700000000007,1700000000007,NULL,NULL,'[]');
INSERT INTO "machines" VALUES(6,NULL,'failed',0,'local',NULL,NULL,NULL,NULL,'load',NULL,0,1700000000007,1700000000007,NULL,NULL,'[]');
INSERT INTO "machines" VALUES(7,NULL,'rejected',0,'local',NULL,NULL,NULL,NULL,'load',NULL,0,1700000000007,1700000000007,NULL,NULL,'[]');
INSERT INTO "machines" VALUES(8,NULL,'retired',0,'local',NULL,NULL,NULL,NULL,'load',NULL,0,1700000000007,1700000000007,NULL,NULL,'[]');
CREATE TABLE marks (
    mac text not null,
    machine bigint not null references machines (id) on delete cascade,
    weak bigint not null,
    primary key (mac, machine)
);
INSERT INTO "marks" VALUES('52:54:00:00:00:01',1,0);
INSERT INTO "marks" VALUES('52:54:00:00:00:02',1,0);
INSERT INTO "marks" VALUES('52:54:00:00:00:09',1,1);
INSERT INTO "marks" VALUES('02:00:00:00:01:03',3,0);
INSERT INTO "marks" VALUES('02:00:00:00:01:04',4,0);
INSERT INTO "marks" VALUES('02:00:00:00:01:05',5,0);
INSERT INTO "marks" VALUES('02:00:00:00:01:06',6,0);
INSERT INTO "marks" VALUES('02:00:00:00:01:07',7,0);
INSERT INTO "marks" VALUES('02:00:00:00:01:08',8,0);
CREATE TABLE schema_version (version bigint not null);
INSERT INTO "schema_version" VALUES(1);
INSERT INTO "schema_version" VALUES(2);
INSERT INTO "schema_version" VALUES(3);
INSERT INTO "schema_version" VALUES(4);
CREATE INDEX jobs_deployment on jobs (deployment);
CREATE INDEX jobs_machine on jobs (machine);
CREATE INDEX events_machine on events (machine, id);
CREATE INDEX events_deployment on events (deployment, id);
CREATE INDEX events_at on events (at);
CREATE INDEX events_progress on events (kind, machine, job, step);
CREATE INDEX marks_machine on marks (machine);
