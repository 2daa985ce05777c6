-- The state of a home as the server before schema versions left it, with a hibernated sandbox, its
-- hibernated child with a checkpoint, an ended and a reaped one, and two that ran when it crashed.
-- @HOME@ and @FORMAT@ stand for the home and the engine's snapshot format.
BEGIN TRANSACTION;
CREATE TABLE checkpoint (id TEXT PRIMARY KEY, uid TEXT NOT NULL, body TEXT NOT NULL);
INSERT INTO "checkpoint" VALUES('cp-407171ed2fe1','4bc0b61a81d2d4a7','{"name": "first", "created_at": "2026-11-26T08:04:58.890905+00:00", "size_bytes": 4096, "spec": {"rootfs": "@HOME@/rootfs/a68f217e9f463c149f065591b1423fd4", "guest": "@HOME@/guest/f0e2b7b7fb4878aecf11a11d", "resources": {"vcpu_count": 1, "memory_mib": 512, "process_limit": 1024}, "environment": {}}, "format": "@FORMAT@"}');
CREATE TABLE ended (id TEXT PRIMARY KEY, reason TEXT NOT NULL, at REAL NOT NULL);
INSERT INTO "ended" VALUES('reaped','deadline',1.79568029990042543411e+09);
CREATE TABLE hibernated (id TEXT PRIMARY KEY, body TEXT NOT NULL);
INSERT INTO "hibernated" VALUES('asleep','{"id": "asleep", "uid": "05887a3b023d0ffd", "template_id": "python", "created_at": "2026-11-26T08:04:58.877127+00:00", "fork_time_ms": 1.6311849999510741, "network": {"egress": "deny", "inbound": "deny"}, "parent_id": null, "remaining_s": 599.9854559898376, "spec": {"rootfs": "@HOME@/rootfs/a68f217e9f463c149f065591b1423fd4", "guest": "@HOME@/guest/f0e2b7b7fb4878aecf11a11d", "resources": {"vcpu_count": 1, "memory_mib": 512, "process_limit": 1024}, "environment": {}}, "format": "@FORMAT@"}');
INSERT INTO "hibernated" VALUES('child','{"id": "child", "uid": "4bc0b61a81d2d4a7", "template_id": "python", "created_at": "2026-11-26T08:04:58.888704+00:00", "fork_time_ms": 10.93770899979063, "network": {"egress": "deny", "inbound": "deny"}, "parent_id": "asleep", "remaining_s": null, "spec": {"rootfs": "@HOME@/rootfs/a68f217e9f463c149f065591b1423fd4", "guest": "@HOME@/guest/f0e2b7b7fb4878aecf11a11d", "resources": {"vcpu_count": 1, "memory_mib": 512, "process_limit": 1024}, "environment": {}}, "format": "@FORMAT@"}');
CREATE TABLE idempotency (
    key TEXT NOT NULL, kind TEXT NOT NULL, resources TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (key, kind));
INSERT INTO "idempotency" VALUES('k1','fork','["asleep"]',1.79568029887758946411e+09);
CREATE TABLE lineage (
    uid TEXT PRIMARY KEY, id TEXT NOT NULL, parent TEXT, template TEXT NOT NULL,
    created_at REAL NOT NULL, ended_at REAL, reason TEXT);
INSERT INTO "lineage" VALUES('05887a3b023d0ffd','asleep',NULL,'python',1.79568029887722086911e+09,NULL,NULL);
INSERT INTO "lineage" VALUES('4bc0b61a81d2d4a7','child','05887a3b023d0ffd','python',1.79568029888876748087e+09,NULL,NULL);
INSERT INTO "lineage" VALUES('d434e5771f244944','other','05887a3b023d0ffd','python',1.7956802988889689445e+09,NULL,NULL);
INSERT INTO "lineage" VALUES('65ff20b50cd777cb','ended',NULL,'base',1.79568029889590549466e+09,1.79568029889637231829e+09,'terminated');
INSERT INTO "lineage" VALUES('38dad75682466528','reaped',NULL,'base',1.7956802988985764981e+09,1.79568029990065622329e+09,'deadline');
INSERT INTO "lineage" VALUES('8195d05a1a2b9568','running',NULL,'base',1.79568030020152854921e+09,NULL,NULL);
CREATE TABLE sandbox (
    id TEXT PRIMARY KEY, template TEXT NOT NULL, machine TEXT NOT NULL, created_at REAL NOT NULL);
INSERT INTO "sandbox" VALUES('other','python','fake-8',1.79568029888901352884e+09);
INSERT INTO "sandbox" VALUES('running','base','fake-16',1.79568030020166683195e+09);
CREATE TABLE template (id TEXT PRIMARY KEY, body TEXT NOT NULL);
INSERT INTO "template" VALUES('python','{"id": "python", "created_at": "2026-11-26T08:04:58.834991+00:00", "creation_time_ms": 32.798242999888316, "network": {"block": false, "egress": "deny", "allow_domains": [], "allow_cidrs": [], "inbound": "deny", "inbound_cidrs": []}, "resources": {"vcpu_count": 1, "memory_mib": 512, "process_limit": 1024}, "workload": null, "rootfs": "@HOME@/rootfs/a68f217e9f463c149f065591b1423fd4", "rootfs_key": "a68f217e9f463c149f065591b1423fd4", "preload": []}');
INSERT INTO "template" VALUES('base','{"id": "base", "created_at": "2026-11-26T08:04:58.868249+00:00", "creation_time_ms": 6.5976789996966545, "network": {"block": false, "egress": "allow", "allow_domains": ["example.com:443"], "allow_cidrs": [], "inbound": "deny", "inbound_cidrs": []}, "resources": {"vcpu_count": 2, "memory_mib": 1024, "process_limit": 1024}, "workload": null, "rootfs": "@HOME@/rootfs/a68f217e9f463c149f065591b1423fd4", "rootfs_key": "a68f217e9f463c149f065591b1423fd4", "preload": []}');
CREATE INDEX lineage_parent ON lineage (parent);
CREATE INDEX ended_at ON ended (at);
COMMIT;
