BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE answers (
	principal VARCHAR(64) NOT NULL, 
	"key" VARCHAR(128) NOT NULL, 
	digest BLOB NOT NULL, 
	status INTEGER NOT NULL, 
	body TEXT NOT NULL, 
	made_ms BIGINT NOT NULL, 
	CONSTRAINT pk_answers PRIMARY KEY (principal, "key")
);
CREATE TABLE cloudlets (
	name VARCHAR(64) NOT NULL, 
	region VARCHAR(64), 
	made_ms BIGINT NOT NULL, 
	document TEXT NOT NULL, 
	change BIGINT DEFAULT 0 NOT NULL, 
	CONSTRAINT pk_cloudlets PRIMARY KEY (name)
);
INSERT INTO "cloudlets" VALUES('c1','north',1800000000000,'{"name":"c1","region":"north","isp_share_permille":0,"is_open":true}',1);
INSERT INTO "cloudlets" VALUES('c2','north',1800000000000,'{"name":"c2","region":"north","isp_share_permille":0,"is_open":true}',0);
CREATE TABLE directives (
	cloudlet VARCHAR(64) NOT NULL, 
	reservation VARCHAR(64) NOT NULL, 
	number BIGINT NOT NULL, 
	is_answered BOOLEAN NOT NULL, 
	made_ms BIGINT NOT NULL, 
	epoch BIGINT, 
	sent_ms BIGINT, 
	document TEXT NOT NULL, 
	CONSTRAINT pk_directives PRIMARY KEY (cloudlet, reservation), 
	CONSTRAINT fk_directives_cloudlet FOREIGN KEY(cloudlet) REFERENCES cloudlets (name), 
	CONSTRAINT fk_directives_reservation FOREIGN KEY(reservation) REFERENCES reservations (name)
);
INSERT INTO "directives" VALUES('c1','r1',2,0,1800000000000,NULL,NULL,'{"cloudlet":"c1","number":2,"wanted":"held","wish":{"vi_type":"small","count":3,"slot":{"begin_ms":1800003600000,"end_ms":1800007200000,"repeat":null},"constraints":{"cloudlet":"c1","region":null,"near":null,"spread":1},"service":null,"max_price_micros":null},"count":3,"terms":1,"is_answered":false}');
CREATE TABLE events (
	number BIGINT NOT NULL, 
	at_ms BIGINT NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	subject VARCHAR(128) NOT NULL, 
	owner VARCHAR(64), 
	document TEXT NOT NULL, 
	digest BLOB NOT NULL, 
	CONSTRAINT pk_events PRIMARY KEY (number)
);
INSERT INTO "events" VALUES(1,1800000000000,'reservation','r1','acme','{"before": "requested", "after": "offered", "text": ""}',X'41785ED6B1472D1589C0FFAD1AAF7F8F283E37C98BFB6C37FC3E4EFC7742F58D');
CREATE TABLE heads (
	name VARCHAR(32) NOT NULL, 
	number BIGINT NOT NULL, 
	digest BLOB NOT NULL, 
	CONSTRAINT pk_heads PRIMARY KEY (name)
);
INSERT INTO "heads" VALUES('events',1,X'41785ED6B1472D1589C0FFAD1AAF7F8F283E37C98BFB6C37FC3E4EFC7742F58D');
CREATE TABLE holds (
	cloudlet VARCHAR(64) NOT NULL, 
	number BIGINT NOT NULL, 
	reservation VARCHAR(64) NOT NULL, 
	owner VARCHAR(64) NOT NULL, 
	is_third_party BOOLEAN NOT NULL, 
	begin_ms BIGINT NOT NULL, 
	end_ms BIGINT NOT NULL, 
	vi_type VARCHAR(64) NOT NULL, 
	vis_count INTEGER NOT NULL, 
	is_released BOOLEAN DEFAULT 0 NOT NULL, 
	change BIGINT NOT NULL, 
	CONSTRAINT pk_holds PRIMARY KEY (cloudlet, number), 
	CONSTRAINT ck_holds_slot CHECK (begin_ms < end_ms), 
	CONSTRAINT ck_holds_vis_count_least CHECK (vis_count >= 1), 
	CONSTRAINT fk_holds_cloudlet FOREIGN KEY(cloudlet) REFERENCES cloudlets (name), 
	CONSTRAINT fk_holds_reservation FOREIGN KEY(reservation) REFERENCES reservations (name)
);
INSERT INTO "holds" VALUES('c1',1,'r1','acme',1,1800003600000,1800007200000,'small',3,0,1);
CREATE TABLE keys (
	id VARCHAR(128) NOT NULL, 
	principal VARCHAR(64) NOT NULL, 
	public_key BLOB NOT NULL, 
	from_ms BIGINT NOT NULL, 
	until_ms BIGINT NOT NULL, 
	revoked_ms BIGINT, 
	CONSTRAINT pk_keys PRIMARY KEY (id), 
	CONSTRAINT fk_keys_principal FOREIGN KEY(principal) REFERENCES principals (name)
);
CREATE TABLE nonces (
	"key" VARCHAR(128) NOT NULL, 
	nonce VARCHAR(128) NOT NULL, 
	until_ms BIGINT NOT NULL, 
	CONSTRAINT pk_nonces PRIMARY KEY ("key", nonce)
);
CREATE TABLE operations (
	id VARCHAR(64) NOT NULL, 
	owner VARCHAR(64), 
	kind VARCHAR(32) NOT NULL, 
	subject VARCHAR(128) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	text TEXT NOT NULL, 
	made_ms BIGINT NOT NULL, 
	changed_ms BIGINT NOT NULL, 
	CONSTRAINT pk_operations PRIMARY KEY (id)
);
CREATE TABLE ownerships (
	name VARCHAR(128) NOT NULL, 
	owner VARCHAR(64) NOT NULL, 
	epoch BIGINT NOT NULL, 
	until_ms BIGINT, 
	CONSTRAINT pk_ownerships PRIMARY KEY (name), 
	CONSTRAINT ck_ownerships_epoch_least CHECK (epoch >= 1)
);
CREATE TABLE price_lists (
	name VARCHAR(64) NOT NULL, 
	version INTEGER NOT NULL, 
	digest BLOB NOT NULL, 
	from_ms BIGINT NOT NULL, 
	document TEXT NOT NULL, 
	CONSTRAINT pk_price_lists PRIMARY KEY (name, version)
);
CREATE TABLE principals (
	name VARCHAR(64) NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	made_ms BIGINT NOT NULL, 
	document TEXT NOT NULL, 
	CONSTRAINT pk_principals PRIMARY KEY (name)
);
INSERT INTO "principals" VALUES('acme','tenant',1800000000000,'{"name":"acme","role":"tenant","title":"","is_open":true}');
INSERT INTO "principals" VALUES('other','tenant',1800000000000,'{"name":"other","role":"tenant","title":"","is_open":true}');
CREATE TABLE reports (
	cloudlet VARCHAR(64) NOT NULL, 
	at_ms BIGINT NOT NULL, 
	document TEXT NOT NULL, 
	CONSTRAINT pk_reports PRIMARY KEY (cloudlet), 
	CONSTRAINT fk_reports_cloudlet FOREIGN KEY(cloudlet) REFERENCES cloudlets (name)
);
CREATE TABLE reservations (
	name VARCHAR(64) NOT NULL, 
	owner VARCHAR(64) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	due_ms BIGINT, 
	made_ms BIGINT NOT NULL, 
	version INTEGER NOT NULL, 
	document TEXT NOT NULL, 
	CONSTRAINT pk_reservations PRIMARY KEY (name), 
	CONSTRAINT fk_reservations_owner FOREIGN KEY(owner) REFERENCES principals (name)
);
INSERT INTO "reservations" VALUES('r1','acme','offered',1800000010000,1800000000000,1,'{"name":"r1","tenant":"acme","is_third_party":true,"wish":{"vi_type":"small","count":3,"slot":{"begin_ms":1800003600000,"end_ms":1800007200000,"repeat":null},"constraints":{"cloudlet":"c1","region":null,"near":null,"spread":1},"service":null,"max_price_micros":null},"created_ms":1800000000000,"state":"offered","since_ms":1800000000000,"requested_ms":1800000000000,"text":"","terms":[{"number":1,"list_name":"standard","list_version":1,"list_digest":"f769fbdb3f7ec52f1ae071fedd19ab4f0d71c4849a49a3edbe54ab90ea0da7ee","currency":{"code":"EUR","minor_digits":2},"vi_type":"small","slot":{"begin_ms":1800003600000,"end_ms":1800007200000,"repeat":null},"parts":[{"cloudlet":"c1","bands":[{"count":2,"factor_permille":1000,"price":{"micros":7,"units":3600}},{"count":1,"factor_permille":3000,"price":{"micros":7,"units":1200}}]}],"chunk_price":{"micros":3,"units":1000},"byte_price":{"micros":1,"units":1048576}}],"directives":[{"cloudlet":"c1","number":2,"wanted":"held","wish":{"vi_type":"small","count":3,"slot":{"begin_ms":1800003600000,"end_ms":1800007200000,"repeat":null},"constraints":{"cloudlet":"c1","region":null,"near":null,"spread":1},"service":null,"max_price_micros":null},"count":3,"terms":1,"is_answered":false}],"passed":[],"last_number":2,"change":null}');
CREATE TABLE rule_sets (
	id VARCHAR(64) NOT NULL, 
	owner VARCHAR(64) NOT NULL, 
	signer VARCHAR(40) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	serial BIGINT NOT NULL, 
	made_ms BIGINT NOT NULL, 
	is_withdrawn BOOLEAN DEFAULT 0 NOT NULL, 
	digest BLOB NOT NULL, 
	document TEXT NOT NULL, 
	text TEXT NOT NULL, 
	CONSTRAINT pk_rule_sets PRIMARY KEY (id), 
	CONSTRAINT uq_rule_sets_signer_name UNIQUE (signer, name), 
	CONSTRAINT fk_rule_sets_owner FOREIGN KEY(owner) REFERENCES principals (name)
);
CREATE TABLE services (
	sid VARCHAR(40) NOT NULL, 
	owner VARCHAR(64) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	made_ms BIGINT NOT NULL, 
	until_ms BIGINT NOT NULL, 
	document TEXT NOT NULL, 
	CONSTRAINT pk_services PRIMARY KEY (sid), 
	CONSTRAINT uq_services_owner_name UNIQUE (owner, name), 
	CONSTRAINT fk_services_owner FOREIGN KEY(owner) REFERENCES principals (name)
);
CREATE TABLE vi_types (
	name VARCHAR(64) NOT NULL, 
	changed_ms BIGINT NOT NULL, 
	document TEXT NOT NULL, 
	CONSTRAINT pk_vi_types PRIMARY KEY (name)
);
CREATE INDEX ix_principals_role_name ON principals (role, name);
CREATE INDEX ix_keys_principal ON keys (principal);
CREATE INDEX ix_rule_sets_owner ON rule_sets (owner);
CREATE INDEX ix_answers_made_ms ON answers (made_ms);
CREATE INDEX ix_events_owner_number ON events (owner, number);
CREATE INDEX ix_events_subject_number ON events (subject, number);
CREATE INDEX ix_reservations_due_ms ON reservations (due_ms);
CREATE INDEX ix_reservations_made_ms ON reservations (made_ms);
CREATE INDEX ix_reservations_owner_made_ms ON reservations (owner, made_ms);
CREATE INDEX ix_holds_cloudlet_change ON holds (cloudlet, change);
CREATE INDEX ix_holds_reservation ON holds (reservation);
CREATE INDEX ix_nonces_until_ms ON nonces (until_ms);
CREATE INDEX ix_operations_state_changed_ms ON operations (state, changed_ms);
CREATE INDEX ix_operations_subject_made_ms ON operations (subject, made_ms);
CREATE INDEX ix_directives_cloudlet_is_answered_made_ms ON directives (cloudlet, is_answered, made_ms);
CREATE INDEX ix_directives_reservation ON directives (reservation);
COMMIT;
