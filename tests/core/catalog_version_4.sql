-- An embedded catalog as version 4 made it, with an execution of somebody's.
BEGIN TRANSACTION;
CREATE TABLE "Asset_Role" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"ID" TEXT NOT NULL, 
	"URI" TEXT NOT NULL, 
	"Name" TEXT NOT NULL, 
	"Description" TEXT NOT NULL, 
	"Synonyms" TEXT, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("ID"), 
	UNIQUE ("URI"), 
	UNIQUE ("Name")
)
 WITHOUT ROWID

;
INSERT INTO "Asset_Role" VALUES('1-000K','2026-12-01T13:28:42.474658+00:00','2026-12-01T13:28:42.474658+00:00','somebody','somebody','deriva-ml:1-000K','/id/1-000K','Input','The execution read it',NULL);
INSERT INTO "Asset_Role" VALUES('1-000M','2026-12-01T13:28:42.474658+00:00','2026-12-01T13:28:42.474658+00:00','somebody','somebody','deriva-ml:1-000M','/id/1-000M','Output','The execution made it',NULL);
CREATE TABLE "Asset_Role__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"ID" TEXT, 
	"URI" TEXT, 
	"Name" TEXT, 
	"Description" TEXT, 
	"Synonyms" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Asset_Type" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"ID" TEXT NOT NULL, 
	"URI" TEXT NOT NULL, 
	"Name" TEXT NOT NULL, 
	"Description" TEXT NOT NULL, 
	"Synonyms" TEXT, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("ID"), 
	UNIQUE ("URI"), 
	UNIQUE ("Name")
)
 WITHOUT ROWID

;
INSERT INTO "Asset_Type" VALUES('1-0000','2026-12-01T13:28:42.466512+00:00','2026-12-01T13:28:42.466512+00:00','somebody','somebody','deriva-ml:1-0000','/id/1-0000','Execution_Config','The configuration of an execution',NULL);
INSERT INTO "Asset_Type" VALUES('1-0001','2026-12-01T13:28:42.466512+00:00','2026-12-01T13:28:42.466512+00:00','somebody','somebody','deriva-ml:1-0001','/id/1-0001','Runtime_Env','The environment that an execution ran in',NULL);
INSERT INTO "Asset_Type" VALUES('1-0002','2026-12-01T13:28:42.466512+00:00','2026-12-01T13:28:42.466512+00:00','somebody','somebody','deriva-ml:1-0002','/id/1-0002','Hydra_Config','What hydra composed for an execution',NULL);
INSERT INTO "Asset_Type" VALUES('1-0003','2026-12-01T13:28:42.466512+00:00','2026-12-01T13:28:42.466512+00:00','somebody','somebody','deriva-ml:1-0003','/id/1-0003','Deriva_Config','The DerivaML configuration of an execution',NULL);
INSERT INTO "Asset_Type" VALUES('1-0004','2026-12-01T13:28:42.466512+00:00','2026-12-01T13:28:42.466512+00:00','somebody','somebody','deriva-ml:1-0004','/id/1-0004','Execution_Metadata','What describes an execution',NULL);
INSERT INTO "Asset_Type" VALUES('1-0005','2026-12-01T13:28:42.466512+00:00','2026-12-01T13:28:42.466512+00:00','somebody','somebody','deriva-ml:1-0005','/id/1-0005','Execution_Asset','What an execution made, of no further kind',NULL);
INSERT INTO "Asset_Type" VALUES('1-0006','2026-12-01T13:28:42.466512+00:00','2026-12-01T13:28:42.466512+00:00','somebody','somebody','deriva-ml:1-0006','/id/1-0006','File','A file',NULL);
INSERT INTO "Asset_Type" VALUES('1-0007','2026-12-01T13:28:42.466512+00:00','2026-12-01T13:28:42.466512+00:00','somebody','somebody','deriva-ml:1-0007','/id/1-0007','Input_File','A file that went into an execution',NULL);
INSERT INTO "Asset_Type" VALUES('1-0008','2026-12-01T13:28:42.466512+00:00','2026-12-01T13:28:42.466512+00:00','somebody','somebody','deriva-ml:1-0008','/id/1-0008','Output_File','A file that came out of an execution',NULL);
INSERT INTO "Asset_Type" VALUES('1-0009','2026-12-01T13:28:42.466512+00:00','2026-12-01T13:28:42.466512+00:00','somebody','somebody','deriva-ml:1-0009','/id/1-0009','Model_File','A trained model',NULL);
INSERT INTO "Asset_Type" VALUES('1-000A','2026-12-01T13:28:42.466512+00:00','2026-12-01T13:28:42.466512+00:00','somebody','somebody','deriva-ml:1-000A','/id/1-000A','Notebook_Output','A notebook as executed',NULL);
INSERT INTO "Asset_Type" VALUES('1-000B','2026-12-01T13:28:42.466512+00:00','2026-12-01T13:28:42.466512+00:00','somebody','somebody','deriva-ml:1-000B','/id/1-000B','Metrics_File','Metrics by epoch or step',NULL);
INSERT INTO "Asset_Type" VALUES('1-000C','2026-12-01T13:28:42.466512+00:00','2026-12-01T13:28:42.466512+00:00','somebody','somebody','deriva-ml:1-000C','/id/1-000C','Best_Checkpoint','The best checkpoint of a training, by the metric that it watched',NULL);
INSERT INTO "Asset_Type" VALUES('1-000D','2026-12-01T13:28:42.466512+00:00','2026-12-01T13:28:42.466512+00:00','somebody','somebody','deriva-ml:1-000D','/id/1-000D','Last_Checkpoint','The last checkpoint of a training',NULL);
INSERT INTO "Asset_Type" VALUES('1-000E','2026-12-01T13:28:42.466512+00:00','2026-12-01T13:28:42.466512+00:00','somebody','somebody','deriva-ml:1-000E','/id/1-000E','Training_Curves','A picture of a training''s metrics by epoch',NULL);
INSERT INTO "Asset_Type" VALUES('1-000F','2026-12-01T13:28:42.466512+00:00','2026-12-01T13:28:42.466512+00:00','somebody','somebody','deriva-ml:1-000F','/id/1-000F','Model','A row of the asset table Model',NULL);
INSERT INTO "Asset_Type" VALUES('1-000G','2026-12-01T13:28:42.466512+00:00','2026-12-01T13:28:42.466512+00:00','somebody','somebody','deriva-ml:1-000G','/id/1-000G','Image','A row of the asset table Image',NULL);
INSERT INTO "Asset_Type" VALUES('1-000H','2026-12-01T13:28:42.466512+00:00','2026-12-01T13:28:42.466512+00:00','somebody','somebody','deriva-ml:1-000H','/id/1-000H','Segmentation_Mask','A mask of regions of an image',NULL);
INSERT INTO "Asset_Type" VALUES('1-000J','2026-12-01T13:28:42.466512+00:00','2026-12-01T13:28:42.466512+00:00','somebody','somebody','deriva-ml:1-000J','/id/1-000J','Derived','Made from another asset',NULL);
CREATE TABLE "Asset_Type__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"ID" TEXT, 
	"URI" TEXT, 
	"Name" TEXT, 
	"Description" TEXT, 
	"Synonyms" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Dataset" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Description" TEXT, 
	"Deleted" INTEGER, 
	"Version" TEXT, 
	PRIMARY KEY ("RID"), 
	CONSTRAINT "Deleted" CHECK ("Deleted" IS NULL OR "Deleted" IN (0, 1)), 
	FOREIGN KEY("Version") REFERENCES "Dataset_Version" ("RID") DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
CREATE TABLE "Dataset_Dataset" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Dataset" TEXT NOT NULL, 
	"Nested_Dataset" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("Dataset", "Nested_Dataset"), 
	FOREIGN KEY("Dataset") REFERENCES "Dataset" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Nested_Dataset") REFERENCES "Dataset" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
CREATE TABLE "Dataset_Dataset_Type" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Dataset" TEXT NOT NULL, 
	"Dataset_Type" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("Dataset", "Dataset_Type"), 
	FOREIGN KEY("Dataset") REFERENCES "Dataset" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Dataset_Type") REFERENCES "Dataset_Type" ("Name") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
CREATE TABLE "Dataset_Dataset_Type__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Dataset" TEXT, 
	"Dataset_Type" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Dataset_Dataset__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Dataset" TEXT, 
	"Nested_Dataset" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Dataset_Execution" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Dataset" TEXT NOT NULL, 
	"Execution" TEXT NOT NULL, 
	"Dataset_Version" TEXT, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("Dataset", "Execution", "Dataset_Version"), 
	FOREIGN KEY("Dataset") REFERENCES "Dataset" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Execution") REFERENCES "Execution" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Dataset_Version") REFERENCES "Dataset_Version" ("RID") DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
CREATE TABLE "Dataset_Execution__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Dataset" TEXT, 
	"Execution" TEXT, 
	"Dataset_Version" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Dataset_File" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Dataset" TEXT NOT NULL, 
	"File" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("Dataset", "File"), 
	FOREIGN KEY("Dataset") REFERENCES "Dataset" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("File") REFERENCES "File" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
CREATE TABLE "Dataset_File__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Dataset" TEXT, 
	"File" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Dataset_Image" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Dataset" TEXT NOT NULL, 
	"Image" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("Dataset", "Image"), 
	FOREIGN KEY("Dataset") REFERENCES "Dataset" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Image") REFERENCES "Image" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
CREATE TABLE "Dataset_Image__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Dataset" TEXT, 
	"Image" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Dataset_Model" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Dataset" TEXT NOT NULL, 
	"Model" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("Dataset", "Model"), 
	FOREIGN KEY("Dataset") REFERENCES "Dataset" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Model") REFERENCES "Model" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
CREATE TABLE "Dataset_Model__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Dataset" TEXT, 
	"Model" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Dataset_Type" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"ID" TEXT NOT NULL, 
	"URI" TEXT NOT NULL, 
	"Name" TEXT NOT NULL, 
	"Description" TEXT NOT NULL, 
	"Synonyms" TEXT, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("ID"), 
	UNIQUE ("URI"), 
	UNIQUE ("Name")
)
 WITHOUT ROWID

;
INSERT INTO "Dataset_Type" VALUES('1-000N','2026-12-01T13:28:42.482004+00:00','2026-12-01T13:28:42.482004+00:00','somebody','somebody','deriva-ml:1-000N','/id/1-000N','File','A dataset of files',NULL);
INSERT INTO "Dataset_Type" VALUES('1-000P','2026-12-01T13:28:42.482004+00:00','2026-12-01T13:28:42.482004+00:00','somebody','somebody','deriva-ml:1-000P','/id/1-000P','Training','To train with',NULL);
INSERT INTO "Dataset_Type" VALUES('1-000Q','2026-12-01T13:28:42.482004+00:00','2026-12-01T13:28:42.482004+00:00','somebody','somebody','deriva-ml:1-000Q','/id/1-000Q','Testing','To test with',NULL);
INSERT INTO "Dataset_Type" VALUES('1-000R','2026-12-01T13:28:42.482004+00:00','2026-12-01T13:28:42.482004+00:00','somebody','somebody','deriva-ml:1-000R','/id/1-000R','Validation','To validate with while training',NULL);
INSERT INTO "Dataset_Type" VALUES('1-000S','2026-12-01T13:28:42.482004+00:00','2026-12-01T13:28:42.482004+00:00','somebody','somebody','deriva-ml:1-000S','/id/1-000S','Augmented','With members made from others',NULL);
CREATE TABLE "Dataset_Type__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"ID" TEXT, 
	"URI" TEXT, 
	"Name" TEXT, 
	"Description" TEXT, 
	"Synonyms" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Dataset_Version" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Version" TEXT NOT NULL, 
	"Description" TEXT, 
	"Dataset" TEXT NOT NULL, 
	"Execution" TEXT, 
	"Minid" TEXT, 
	"Snapshot" TEXT, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("Dataset", "Version"), 
	FOREIGN KEY("Dataset") REFERENCES "Dataset" ("RID") DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Execution") REFERENCES "Execution" ("RID") DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
CREATE TABLE "Dataset_Version__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Version" TEXT, 
	"Description" TEXT, 
	"Dataset" TEXT, 
	"Execution" TEXT, 
	"Minid" TEXT, 
	"Snapshot" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Dataset__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Description" TEXT, 
	"Deleted" INTEGER, 
	"Version" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Execution" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Workflow" TEXT, 
	"Description" TEXT, 
	"Duration" TEXT, 
	"Status" TEXT, 
	"Status_Detail" TEXT, 
	PRIMARY KEY ("RID"), 
	FOREIGN KEY("Workflow") REFERENCES "Workflow" ("RID") DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
INSERT INTO "Execution" VALUES('1-0010','2026-12-01T13:28:42.596041+00:00','2026-12-01T13:28:42.596041+00:00','somebody','somebody','1-000Z','Made by version 4',NULL,'Completed',NULL);
CREATE TABLE "Execution_Asset" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"URL" TEXT NOT NULL, 
	"Filename" TEXT, 
	"Description" TEXT, 
	"Length" INTEGER NOT NULL, 
	"MD5" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("URL"), 
	CONSTRAINT "Length" CHECK ("Length" IS NULL OR typeof("Length") = 'integer')
)
 WITHOUT ROWID

;
CREATE TABLE "Execution_Asset_Asset_Type" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Execution_Asset" TEXT NOT NULL, 
	"Asset_Type" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("Execution_Asset", "Asset_Type"), 
	FOREIGN KEY("Execution_Asset") REFERENCES "Execution_Asset" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Asset_Type") REFERENCES "Asset_Type" ("Name") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
CREATE TABLE "Execution_Asset_Asset_Type__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Execution_Asset" TEXT, 
	"Asset_Type" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Execution_Asset_Execution" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Execution_Asset" TEXT NOT NULL, 
	"Execution" TEXT NOT NULL, 
	"Asset_Role" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("Execution_Asset", "Execution"), 
	FOREIGN KEY("Execution_Asset") REFERENCES "Execution_Asset" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Execution") REFERENCES "Execution" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Asset_Role") REFERENCES "Asset_Role" ("Name") DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
CREATE TABLE "Execution_Asset_Execution__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Execution_Asset" TEXT, 
	"Execution" TEXT, 
	"Asset_Role" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Execution_Asset__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"URL" TEXT, 
	"Filename" TEXT, 
	"Description" TEXT, 
	"Length" INTEGER, 
	"MD5" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Execution_Execution" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Execution" TEXT NOT NULL, 
	"Nested_Execution" TEXT NOT NULL, 
	"Sequence" INTEGER, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("Execution", "Nested_Execution"), 
	CONSTRAINT "Sequence" CHECK ("Sequence" IS NULL OR typeof("Sequence") = 'integer'), 
	FOREIGN KEY("Execution") REFERENCES "Execution" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Nested_Execution") REFERENCES "Execution" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
CREATE TABLE "Execution_Execution__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Execution" TEXT, 
	"Nested_Execution" TEXT, 
	"Sequence" INTEGER, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Execution_Metadata" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"URL" TEXT NOT NULL, 
	"Filename" TEXT, 
	"Description" TEXT, 
	"Length" INTEGER NOT NULL, 
	"MD5" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("URL"), 
	CONSTRAINT "Length" CHECK ("Length" IS NULL OR typeof("Length") = 'integer')
)
 WITHOUT ROWID

;
CREATE TABLE "Execution_Metadata_Asset_Type" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Execution_Metadata" TEXT NOT NULL, 
	"Asset_Type" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("Execution_Metadata", "Asset_Type"), 
	FOREIGN KEY("Execution_Metadata") REFERENCES "Execution_Metadata" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Asset_Type") REFERENCES "Asset_Type" ("Name") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
CREATE TABLE "Execution_Metadata_Asset_Type__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Execution_Metadata" TEXT, 
	"Asset_Type" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Execution_Metadata_Execution" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Execution_Metadata" TEXT NOT NULL, 
	"Execution" TEXT NOT NULL, 
	"Asset_Role" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("Execution_Metadata", "Execution"), 
	FOREIGN KEY("Execution_Metadata") REFERENCES "Execution_Metadata" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Execution") REFERENCES "Execution" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Asset_Role") REFERENCES "Asset_Role" ("Name") DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
CREATE TABLE "Execution_Metadata_Execution__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Execution_Metadata" TEXT, 
	"Execution" TEXT, 
	"Asset_Role" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Execution_Metadata__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"URL" TEXT, 
	"Filename" TEXT, 
	"Description" TEXT, 
	"Length" INTEGER, 
	"MD5" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Execution_Metric" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Execution" TEXT NOT NULL, 
	"Stage" TEXT NOT NULL, 
	"Name" TEXT NOT NULL, 
	"Last" REAL, 
	"Best" REAL, 
	"Best_At" INTEGER, 
	"Larger_Is_Better" INTEGER NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("Execution", "Stage", "Name"), 
	CONSTRAINT "Last" CHECK ("Last" IS NULL OR typeof("Last") = 'real'), 
	CONSTRAINT "Best" CHECK ("Best" IS NULL OR typeof("Best") = 'real'), 
	CONSTRAINT "Best_At" CHECK ("Best_At" IS NULL OR typeof("Best_At") = 'integer'), 
	CONSTRAINT "Larger_Is_Better" CHECK ("Larger_Is_Better" IS NULL OR "Larger_Is_Better" IN (0, 1)), 
	FOREIGN KEY("Execution") REFERENCES "Execution" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
INSERT INTO "Execution_Metric" VALUES('1-0011','2026-12-01T13:28:42.608145+00:00','2026-12-01T13:28:42.608145+00:00','somebody','somebody','1-0010','fit','loss',0.5,0.25,2,0);
CREATE TABLE "Execution_Metric__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Execution" TEXT, 
	"Stage" TEXT, 
	"Name" TEXT, 
	"Last" REAL, 
	"Best" REAL, 
	"Best_At" INTEGER, 
	"Larger_Is_Better" INTEGER, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Execution_Parameter" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Execution" TEXT NOT NULL, 
	"Name" TEXT NOT NULL, 
	"Value" TEXT NOT NULL, 
	"Number" REAL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("Execution", "Name"), 
	CONSTRAINT "Number" CHECK ("Number" IS NULL OR typeof("Number") = 'real'), 
	FOREIGN KEY("Execution") REFERENCES "Execution" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
INSERT INTO "Execution_Parameter" VALUES('1-0012','2026-12-01T13:28:42.620092+00:00','2026-12-01T13:28:42.620092+00:00','somebody','somebody','1-0010','rate','0.1',0.1);
CREATE TABLE "Execution_Parameter__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Execution" TEXT, 
	"Name" TEXT, 
	"Value" TEXT, 
	"Number" REAL, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Execution__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Workflow" TEXT, 
	"Description" TEXT, 
	"Duration" TEXT, 
	"Status" TEXT, 
	"Status_Detail" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Feature_Name" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"ID" TEXT NOT NULL, 
	"URI" TEXT NOT NULL, 
	"Name" TEXT NOT NULL, 
	"Description" TEXT NOT NULL, 
	"Synonyms" TEXT, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("ID"), 
	UNIQUE ("URI"), 
	UNIQUE ("Name")
)
 WITHOUT ROWID

;
CREATE TABLE "Feature_Name__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"ID" TEXT, 
	"URI" TEXT, 
	"Name" TEXT, 
	"Description" TEXT, 
	"Synonyms" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "File" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"URL" TEXT NOT NULL, 
	"Filename" TEXT, 
	"Description" TEXT, 
	"Length" INTEGER NOT NULL, 
	"MD5" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("URL"), 
	CONSTRAINT "Length" CHECK ("Length" IS NULL OR typeof("Length") = 'integer')
)
 WITHOUT ROWID

;
CREATE TABLE "File_Asset_Type" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"File" TEXT NOT NULL, 
	"Asset_Type" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("File", "Asset_Type"), 
	FOREIGN KEY("File") REFERENCES "File" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Asset_Type") REFERENCES "Asset_Type" ("Name") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
CREATE TABLE "File_Asset_Type__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"File" TEXT, 
	"Asset_Type" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "File_Execution" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"File" TEXT NOT NULL, 
	"Execution" TEXT NOT NULL, 
	"Asset_Role" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("File", "Execution"), 
	FOREIGN KEY("File") REFERENCES "File" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Execution") REFERENCES "Execution" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Asset_Role") REFERENCES "Asset_Role" ("Name") DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
CREATE TABLE "File_Execution__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"File" TEXT, 
	"Execution" TEXT, 
	"Asset_Role" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "File__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"URL" TEXT, 
	"Filename" TEXT, 
	"Description" TEXT, 
	"Length" INTEGER, 
	"MD5" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Image" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"URL" TEXT NOT NULL, 
	"Filename" TEXT, 
	"Description" TEXT, 
	"Length" INTEGER NOT NULL, 
	"MD5" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("URL"), 
	CONSTRAINT "Length" CHECK ("Length" IS NULL OR typeof("Length") = 'integer')
)
 WITHOUT ROWID

;
CREATE TABLE "Image_Asset_Type" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Image" TEXT NOT NULL, 
	"Asset_Type" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("Image", "Asset_Type"), 
	FOREIGN KEY("Image") REFERENCES "Image" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Asset_Type") REFERENCES "Asset_Type" ("Name") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
CREATE TABLE "Image_Asset_Type__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Image" TEXT, 
	"Asset_Type" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Image_Execution" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Image" TEXT NOT NULL, 
	"Execution" TEXT NOT NULL, 
	"Asset_Role" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("Image", "Execution"), 
	FOREIGN KEY("Image") REFERENCES "Image" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Execution") REFERENCES "Execution" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Asset_Role") REFERENCES "Asset_Role" ("Name") DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
CREATE TABLE "Image_Execution__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Image" TEXT, 
	"Execution" TEXT, 
	"Asset_Role" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Image__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"URL" TEXT, 
	"Filename" TEXT, 
	"Description" TEXT, 
	"Length" INTEGER, 
	"MD5" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Model" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"URL" TEXT NOT NULL, 
	"Filename" TEXT, 
	"Description" TEXT, 
	"Length" INTEGER NOT NULL, 
	"MD5" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("URL"), 
	CONSTRAINT "Length" CHECK ("Length" IS NULL OR typeof("Length") = 'integer')
)
 WITHOUT ROWID

;
CREATE TABLE "Model_Asset_Type" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Model" TEXT NOT NULL, 
	"Asset_Type" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("Model", "Asset_Type"), 
	FOREIGN KEY("Model") REFERENCES "Model" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Asset_Type") REFERENCES "Asset_Type" ("Name") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
CREATE TABLE "Model_Asset_Type__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Model" TEXT, 
	"Asset_Type" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Model_Execution" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Model" TEXT NOT NULL, 
	"Execution" TEXT NOT NULL, 
	"Asset_Role" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("Model", "Execution"), 
	FOREIGN KEY("Model") REFERENCES "Model" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Execution") REFERENCES "Execution" ("RID") ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED, 
	FOREIGN KEY("Asset_Role") REFERENCES "Asset_Role" ("Name") DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
CREATE TABLE "Model_Execution__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Model" TEXT, 
	"Execution" TEXT, 
	"Asset_Role" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Model__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"URL" TEXT, 
	"Filename" TEXT, 
	"Description" TEXT, 
	"Length" INTEGER, 
	"MD5" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Workflow" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Name" TEXT, 
	"Description" TEXT, 
	"URL" TEXT, 
	"Checksum" TEXT, 
	"Version" TEXT, 
	"Workflow_Type" TEXT NOT NULL, 
	PRIMARY KEY ("RID"), 
	FOREIGN KEY("Workflow_Type") REFERENCES "Workflow_Type" ("Name") DEFERRABLE INITIALLY DEFERRED
)
 WITHOUT ROWID

;
INSERT INTO "Workflow" VALUES('1-000Z','2026-12-01T13:28:42.576758+00:00','2026-12-01T13:28:42.576758+00:00','somebody','somebody','W',NULL,NULL,NULL,NULL,'Training');
CREATE TABLE "Workflow_Type" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"ID" TEXT NOT NULL, 
	"URI" TEXT NOT NULL, 
	"Name" TEXT NOT NULL, 
	"Description" TEXT NOT NULL, 
	"Synonyms" TEXT, 
	PRIMARY KEY ("RID"), 
	UNIQUE ("ID"), 
	UNIQUE ("URI"), 
	UNIQUE ("Name")
)
 WITHOUT ROWID

;
INSERT INTO "Workflow_Type" VALUES('1-000T','2026-12-01T13:28:42.488993+00:00','2026-12-01T13:28:42.488993+00:00','somebody','somebody','deriva-ml:1-000T','/id/1-000T','Training','Model training workflows',NULL);
INSERT INTO "Workflow_Type" VALUES('1-000V','2026-12-01T13:28:42.488993+00:00','2026-12-01T13:28:42.488993+00:00','somebody','somebody','deriva-ml:1-000V','/id/1-000V','Inference','Running predictions on new data',NULL);
INSERT INTO "Workflow_Type" VALUES('1-000W','2026-12-01T13:28:42.488993+00:00','2026-12-01T13:28:42.488993+00:00','somebody','somebody','deriva-ml:1-000W','/id/1-000W','Preprocessing','Data cleaning and transformation',NULL);
INSERT INTO "Workflow_Type" VALUES('1-000X','2026-12-01T13:28:42.488993+00:00','2026-12-01T13:28:42.488993+00:00','somebody','somebody','deriva-ml:1-000X','/id/1-000X','Evaluation','Model evaluation and metrics',NULL);
INSERT INTO "Workflow_Type" VALUES('1-000Y','2026-12-01T13:28:42.488993+00:00','2026-12-01T13:28:42.488993+00:00','somebody','somebody','deriva-ml:1-000Y','/id/1-000Y','Annotation','Adding labels or features',NULL);
CREATE TABLE "Workflow_Type__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"ID" TEXT, 
	"URI" TEXT, 
	"Name" TEXT, 
	"Description" TEXT, 
	"Synonyms" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE "Workflow__history" (
	"RID" TEXT NOT NULL, 
	"RCT" TEXT NOT NULL, 
	"RMT" TEXT NOT NULL, 
	"RCB" TEXT NOT NULL, 
	"RMB" TEXT NOT NULL, 
	"Name" TEXT, 
	"Description" TEXT, 
	"URL" TEXT, 
	"Checksum" TEXT, 
	"Version" TEXT, 
	"Workflow_Type" TEXT, 
	__until TEXT NOT NULL, 
	PRIMARY KEY ("RID", __until)
)
 WITHOUT ROWID

;
CREATE TABLE _clock (id INTEGER PRIMARY KEY CHECK (id = 1), tick INTEGER NOT NULL, time TEXT NOT NULL, rid INTEGER NOT NULL);
INSERT INTO "_clock" VALUES(1,1796131722620092,'2026-12-01T13:28:42.620092+00:00',1048611);
CREATE TABLE _given (number INTEGER PRIMARY KEY);
CREATE TABLE _model (id INTEGER PRIMARY KEY CHECK (id = 1), tables TEXT NOT NULL);
INSERT INTO "_model" VALUES(1,'[{"name": "Asset_Type", "columns": [{"name": "ID", "type": "ermrest_curie", "nullok": false, "default": "deriva-ml:{RID}", "comment": null}, {"name": "URI", "type": "ermrest_uri", "nullok": false, "default": "/id/{RID}", "comment": null}, {"name": "Name", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Description", "type": "markdown", "nullok": false, "default": null, "comment": null}, {"name": "Synonyms", "type": "text[]", "nullok": true, "default": null, "comment": null}], "keys": [["ID"], ["URI"], ["Name"]], "foreign_keys": [], "schema": "deriva-ml", "comment": null}, {"name": "Asset_Role", "columns": [{"name": "ID", "type": "ermrest_curie", "nullok": false, "default": "deriva-ml:{RID}", "comment": null}, {"name": "URI", "type": "ermrest_uri", "nullok": false, "default": "/id/{RID}", "comment": null}, {"name": "Name", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Description", "type": "markdown", "nullok": false, "default": null, "comment": null}, {"name": "Synonyms", "type": "text[]", "nullok": true, "default": null, "comment": null}], "keys": [["ID"], ["URI"], ["Name"]], "foreign_keys": [], "schema": "deriva-ml", "comment": null}, {"name": "Dataset_Type", "columns": [{"name": "ID", "type": "ermrest_curie", "nullok": false, "default": "deriva-ml:{RID}", "comment": null}, {"name": "URI", "type": "ermrest_uri", "nullok": false, "default": "/id/{RID}", "comment": null}, {"name": "Name", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Description", "type": "markdown", "nullok": false, "default": null, "comment": null}, {"name": "Synonyms", "type": "text[]", "nullok": true, "default": null, "comment": null}], "keys": [["ID"], ["URI"], ["Name"]], "foreign_keys": [], "schema": "deriva-ml", "comment": null}, {"name": "Workflow_Type", "columns": [{"name": "ID", "type": "ermrest_curie", "nullok": false, "default": "deriva-ml:{RID}", "comment": null}, {"name": "URI", "type": "ermrest_uri", "nullok": false, "default": "/id/{RID}", "comment": null}, {"name": "Name", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Description", "type": "markdown", "nullok": false, "default": null, "comment": null}, {"name": "Synonyms", "type": "text[]", "nullok": true, "default": null, "comment": null}], "keys": [["ID"], ["URI"], ["Name"]], "foreign_keys": [], "schema": "deriva-ml", "comment": null}, {"name": "Feature_Name", "columns": [{"name": "ID", "type": "ermrest_curie", "nullok": false, "default": "deriva-ml:{RID}", "comment": null}, {"name": "URI", "type": "ermrest_uri", "nullok": false, "default": "/id/{RID}", "comment": null}, {"name": "Name", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Description", "type": "markdown", "nullok": false, "default": null, "comment": null}, {"name": "Synonyms", "type": "text[]", "nullok": true, "default": null, "comment": null}], "keys": [["ID"], ["URI"], ["Name"]], "foreign_keys": [], "schema": "deriva-ml", "comment": null}, {"name": "Workflow", "columns": [{"name": "Name", "type": "text", "nullok": true, "default": null, "comment": null}, {"name": "Description", "type": "markdown", "nullok": true, "default": null, "comment": null}, {"name": "URL", "type": "ermrest_uri", "nullok": true, "default": null, "comment": null}, {"name": "Checksum", "type": "text", "nullok": true, "default": null, "comment": null}, {"name": "Version", "type": "text", "nullok": true, "default": null, "comment": null}, {"name": "Workflow_Type", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [], "foreign_keys": [{"column": "Workflow_Type", "table": "Workflow_Type", "to": "Name", "cascade": false}], "schema": "deriva-ml", "comment": null}, {"name": "Execution", "columns": [{"name": "Workflow", "type": "text", "nullok": true, "default": null, "comment": null}, {"name": "Description", "type": "markdown", "nullok": true, "default": null, "comment": null}, {"name": "Duration", "type": "text", "nullok": true, "default": null, "comment": null}, {"name": "Status", "type": "text", "nullok": true, "default": null, "comment": null}, {"name": "Status_Detail", "type": "text", "nullok": true, "default": null, "comment": null}], "keys": [], "foreign_keys": [{"column": "Workflow", "table": "Workflow", "to": "RID", "cascade": false}], "schema": "deriva-ml", "comment": null}, {"name": "Execution_Execution", "columns": [{"name": "Execution", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Nested_Execution", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Sequence", "type": "int4", "nullok": true, "default": null, "comment": null}], "keys": [["Execution", "Nested_Execution"]], "foreign_keys": [{"column": "Execution", "table": "Execution", "to": "RID", "cascade": true}, {"column": "Nested_Execution", "table": "Execution", "to": "RID", "cascade": true}], "schema": "deriva-ml", "comment": null}, {"name": "Execution_Metric", "columns": [{"name": "Execution", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Stage", "type": "text", "nullok": false, "default": null, "comment": "fit, validate, test or predict"}, {"name": "Name", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Last", "type": "float8", "nullok": true, "default": null, "comment": "The newest value; empty where that is no finite number"}, {"name": "Best", "type": "float8", "nullok": true, "default": null, "comment": "The best finite value"}, {"name": "Best_At", "type": "int4", "nullok": true, "default": null, "comment": "The epoch of the best value, from 1"}, {"name": "Larger_Is_Better", "type": "boolean", "nullok": false, "default": null, "comment": null}], "keys": [["Execution", "Stage", "Name"]], "foreign_keys": [{"column": "Execution", "table": "Execution", "to": "RID", "cascade": true}], "schema": "deriva-ml", "comment": "Where each metric of an execution stands, so that executions can be ordered by it"}, {"name": "Execution_Parameter", "columns": [{"name": "Execution", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Name", "type": "text", "nullok": false, "default": null, "comment": "Nested settings are joined with dots, as in optimizer.lr"}, {"name": "Value", "type": "text", "nullok": false, "default": null, "comment": "A text as it is, any other value as JSON; cut at 500 characters"}, {"name": "Number", "type": "float8", "nullok": true, "default": null, "comment": "The value if it is a finite number"}], "keys": [["Execution", "Name"]], "foreign_keys": [{"column": "Execution", "table": "Execution", "to": "RID", "cascade": true}], "schema": "deriva-ml", "comment": "The settings of each execution, so that executions can be found and compared by them"}, {"name": "Dataset", "columns": [{"name": "Description", "type": "markdown", "nullok": true, "default": null, "comment": null}, {"name": "Deleted", "type": "boolean", "nullok": true, "default": null, "comment": null}, {"name": "Version", "type": "text", "nullok": true, "default": null, "comment": null}], "keys": [], "foreign_keys": [{"column": "Version", "table": "Dataset_Version", "to": "RID", "cascade": false}], "schema": "deriva-ml", "comment": null}, {"name": "Dataset_Version", "columns": [{"name": "Version", "type": "text", "nullok": false, "default": "0.1.0", "comment": null}, {"name": "Description", "type": "markdown", "nullok": true, "default": null, "comment": null}, {"name": "Dataset", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Execution", "type": "text", "nullok": true, "default": null, "comment": null}, {"name": "Minid", "type": "text", "nullok": true, "default": null, "comment": null}, {"name": "Snapshot", "type": "text", "nullok": true, "default": null, "comment": null}], "keys": [["Dataset", "Version"]], "foreign_keys": [{"column": "Dataset", "table": "Dataset", "to": "RID", "cascade": false}, {"column": "Execution", "table": "Execution", "to": "RID", "cascade": false}], "schema": "deriva-ml", "comment": null}, {"name": "Dataset_Dataset_Type", "columns": [{"name": "Dataset", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Dataset_Type", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["Dataset", "Dataset_Type"]], "foreign_keys": [{"column": "Dataset", "table": "Dataset", "to": "RID", "cascade": true}, {"column": "Dataset_Type", "table": "Dataset_Type", "to": "Name", "cascade": true}], "schema": "deriva-ml", "comment": null}, {"name": "Dataset_Dataset", "columns": [{"name": "Dataset", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Nested_Dataset", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["Dataset", "Nested_Dataset"]], "foreign_keys": [{"column": "Dataset", "table": "Dataset", "to": "RID", "cascade": true}, {"column": "Nested_Dataset", "table": "Dataset", "to": "RID", "cascade": true}], "schema": "deriva-ml", "comment": null}, {"name": "Dataset_Execution", "columns": [{"name": "Dataset", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Execution", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Dataset_Version", "type": "text", "nullok": true, "default": null, "comment": null}], "keys": [["Dataset", "Execution", "Dataset_Version"]], "foreign_keys": [{"column": "Dataset", "table": "Dataset", "to": "RID", "cascade": true}, {"column": "Execution", "table": "Execution", "to": "RID", "cascade": true}, {"column": "Dataset_Version", "table": "Dataset_Version", "to": "RID", "cascade": false}], "schema": "deriva-ml", "comment": null}, {"name": "Execution_Metadata", "columns": [{"name": "URL", "type": "ermrest_uri", "nullok": false, "default": null, "comment": null}, {"name": "Filename", "type": "text", "nullok": true, "default": null, "comment": null}, {"name": "Description", "type": "markdown", "nullok": true, "default": null, "comment": null}, {"name": "Length", "type": "int8", "nullok": false, "default": null, "comment": null}, {"name": "MD5", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["URL"]], "foreign_keys": [], "schema": "deriva-ml", "comment": null}, {"name": "Execution_Metadata_Asset_Type", "columns": [{"name": "Execution_Metadata", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Asset_Type", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["Execution_Metadata", "Asset_Type"]], "foreign_keys": [{"column": "Execution_Metadata", "table": "Execution_Metadata", "to": "RID", "cascade": true}, {"column": "Asset_Type", "table": "Asset_Type", "to": "Name", "cascade": true}], "schema": "deriva-ml", "comment": null}, {"name": "Execution_Metadata_Execution", "columns": [{"name": "Execution_Metadata", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Execution", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Asset_Role", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["Execution_Metadata", "Execution"]], "foreign_keys": [{"column": "Execution_Metadata", "table": "Execution_Metadata", "to": "RID", "cascade": true}, {"column": "Execution", "table": "Execution", "to": "RID", "cascade": true}, {"column": "Asset_Role", "table": "Asset_Role", "to": "Name", "cascade": false}], "schema": "deriva-ml", "comment": null}, {"name": "Execution_Asset", "columns": [{"name": "URL", "type": "ermrest_uri", "nullok": false, "default": null, "comment": null}, {"name": "Filename", "type": "text", "nullok": true, "default": null, "comment": null}, {"name": "Description", "type": "markdown", "nullok": true, "default": null, "comment": null}, {"name": "Length", "type": "int8", "nullok": false, "default": null, "comment": null}, {"name": "MD5", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["URL"]], "foreign_keys": [], "schema": "deriva-ml", "comment": null}, {"name": "Execution_Asset_Asset_Type", "columns": [{"name": "Execution_Asset", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Asset_Type", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["Execution_Asset", "Asset_Type"]], "foreign_keys": [{"column": "Execution_Asset", "table": "Execution_Asset", "to": "RID", "cascade": true}, {"column": "Asset_Type", "table": "Asset_Type", "to": "Name", "cascade": true}], "schema": "deriva-ml", "comment": null}, {"name": "Execution_Asset_Execution", "columns": [{"name": "Execution_Asset", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Execution", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Asset_Role", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["Execution_Asset", "Execution"]], "foreign_keys": [{"column": "Execution_Asset", "table": "Execution_Asset", "to": "RID", "cascade": true}, {"column": "Execution", "table": "Execution", "to": "RID", "cascade": true}, {"column": "Asset_Role", "table": "Asset_Role", "to": "Name", "cascade": false}], "schema": "deriva-ml", "comment": null}, {"name": "File", "columns": [{"name": "URL", "type": "ermrest_uri", "nullok": false, "default": null, "comment": null}, {"name": "Filename", "type": "text", "nullok": true, "default": null, "comment": null}, {"name": "Description", "type": "markdown", "nullok": true, "default": null, "comment": null}, {"name": "Length", "type": "int8", "nullok": false, "default": null, "comment": null}, {"name": "MD5", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["URL"]], "foreign_keys": [], "schema": "deriva-ml", "comment": null}, {"name": "File_Asset_Type", "columns": [{"name": "File", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Asset_Type", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["File", "Asset_Type"]], "foreign_keys": [{"column": "File", "table": "File", "to": "RID", "cascade": true}, {"column": "Asset_Type", "table": "Asset_Type", "to": "Name", "cascade": true}], "schema": "deriva-ml", "comment": null}, {"name": "File_Execution", "columns": [{"name": "File", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Execution", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Asset_Role", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["File", "Execution"]], "foreign_keys": [{"column": "File", "table": "File", "to": "RID", "cascade": true}, {"column": "Execution", "table": "Execution", "to": "RID", "cascade": true}, {"column": "Asset_Role", "table": "Asset_Role", "to": "Name", "cascade": false}], "schema": "deriva-ml", "comment": null}, {"name": "Model", "columns": [{"name": "URL", "type": "ermrest_uri", "nullok": false, "default": null, "comment": null}, {"name": "Filename", "type": "text", "nullok": true, "default": null, "comment": null}, {"name": "Description", "type": "markdown", "nullok": true, "default": null, "comment": null}, {"name": "Length", "type": "int8", "nullok": false, "default": null, "comment": null}, {"name": "MD5", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["URL"]], "foreign_keys": [], "schema": "domain", "comment": null}, {"name": "Model_Asset_Type", "columns": [{"name": "Model", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Asset_Type", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["Model", "Asset_Type"]], "foreign_keys": [{"column": "Model", "table": "Model", "to": "RID", "cascade": true}, {"column": "Asset_Type", "table": "Asset_Type", "to": "Name", "cascade": true}], "schema": "domain", "comment": null}, {"name": "Model_Execution", "columns": [{"name": "Model", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Execution", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Asset_Role", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["Model", "Execution"]], "foreign_keys": [{"column": "Model", "table": "Model", "to": "RID", "cascade": true}, {"column": "Execution", "table": "Execution", "to": "RID", "cascade": true}, {"column": "Asset_Role", "table": "Asset_Role", "to": "Name", "cascade": false}], "schema": "domain", "comment": null}, {"name": "Image", "columns": [{"name": "URL", "type": "ermrest_uri", "nullok": false, "default": null, "comment": null}, {"name": "Filename", "type": "text", "nullok": true, "default": null, "comment": null}, {"name": "Description", "type": "markdown", "nullok": true, "default": null, "comment": null}, {"name": "Length", "type": "int8", "nullok": false, "default": null, "comment": null}, {"name": "MD5", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["URL"]], "foreign_keys": [], "schema": "domain", "comment": null}, {"name": "Image_Asset_Type", "columns": [{"name": "Image", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Asset_Type", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["Image", "Asset_Type"]], "foreign_keys": [{"column": "Image", "table": "Image", "to": "RID", "cascade": true}, {"column": "Asset_Type", "table": "Asset_Type", "to": "Name", "cascade": true}], "schema": "domain", "comment": null}, {"name": "Image_Execution", "columns": [{"name": "Image", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Execution", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Asset_Role", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["Image", "Execution"]], "foreign_keys": [{"column": "Image", "table": "Image", "to": "RID", "cascade": true}, {"column": "Execution", "table": "Execution", "to": "RID", "cascade": true}, {"column": "Asset_Role", "table": "Asset_Role", "to": "Name", "cascade": false}], "schema": "domain", "comment": null}, {"name": "Dataset_File", "columns": [{"name": "Dataset", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "File", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["Dataset", "File"]], "foreign_keys": [{"column": "Dataset", "table": "Dataset", "to": "RID", "cascade": true}, {"column": "File", "table": "File", "to": "RID", "cascade": true}], "schema": "deriva-ml", "comment": null}, {"name": "Dataset_Model", "columns": [{"name": "Dataset", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Model", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["Dataset", "Model"]], "foreign_keys": [{"column": "Dataset", "table": "Dataset", "to": "RID", "cascade": true}, {"column": "Model", "table": "Model", "to": "RID", "cascade": true}], "schema": "domain", "comment": null}, {"name": "Dataset_Image", "columns": [{"name": "Dataset", "type": "text", "nullok": false, "default": null, "comment": null}, {"name": "Image", "type": "text", "nullok": false, "default": null, "comment": null}], "keys": [["Dataset", "Image"]], "foreign_keys": [{"column": "Dataset", "table": "Dataset", "to": "RID", "cascade": true}, {"column": "Image", "table": "Image", "to": "RID", "cascade": true}], "schema": "domain", "comment": null}]');
CREATE INDEX "Asset_Type__RCT" ON "Asset_Type" ("RCT");
CREATE TRIGGER "Asset_Type__update" AFTER UPDATE ON "Asset_Type" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Asset_Type__history" ("RID", "RCT", "RMT", "RCB", "RMB", "ID", "URI", "Name", "Description", "Synonyms", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."ID", OLD."URI", OLD."Name", OLD."Description", OLD."Synonyms", NEW.RMT); END;
CREATE TRIGGER "Asset_Type__delete" AFTER DELETE ON "Asset_Type" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Asset_Type__history" ("RID", "RCT", "RMT", "RCB", "RMB", "ID", "URI", "Name", "Description", "Synonyms", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."ID", OLD."URI", OLD."Name", OLD."Description", OLD."Synonyms", (SELECT time FROM _clock)); END;
CREATE INDEX "Asset_Role__RCT" ON "Asset_Role" ("RCT");
CREATE TRIGGER "Asset_Role__update" AFTER UPDATE ON "Asset_Role" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Asset_Role__history" ("RID", "RCT", "RMT", "RCB", "RMB", "ID", "URI", "Name", "Description", "Synonyms", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."ID", OLD."URI", OLD."Name", OLD."Description", OLD."Synonyms", NEW.RMT); END;
CREATE TRIGGER "Asset_Role__delete" AFTER DELETE ON "Asset_Role" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Asset_Role__history" ("RID", "RCT", "RMT", "RCB", "RMB", "ID", "URI", "Name", "Description", "Synonyms", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."ID", OLD."URI", OLD."Name", OLD."Description", OLD."Synonyms", (SELECT time FROM _clock)); END;
CREATE INDEX "Dataset_Type__RCT" ON "Dataset_Type" ("RCT");
CREATE TRIGGER "Dataset_Type__update" AFTER UPDATE ON "Dataset_Type" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Dataset_Type__history" ("RID", "RCT", "RMT", "RCB", "RMB", "ID", "URI", "Name", "Description", "Synonyms", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."ID", OLD."URI", OLD."Name", OLD."Description", OLD."Synonyms", NEW.RMT); END;
CREATE TRIGGER "Dataset_Type__delete" AFTER DELETE ON "Dataset_Type" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Dataset_Type__history" ("RID", "RCT", "RMT", "RCB", "RMB", "ID", "URI", "Name", "Description", "Synonyms", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."ID", OLD."URI", OLD."Name", OLD."Description", OLD."Synonyms", (SELECT time FROM _clock)); END;
CREATE INDEX "Workflow_Type__RCT" ON "Workflow_Type" ("RCT");
CREATE TRIGGER "Workflow_Type__update" AFTER UPDATE ON "Workflow_Type" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Workflow_Type__history" ("RID", "RCT", "RMT", "RCB", "RMB", "ID", "URI", "Name", "Description", "Synonyms", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."ID", OLD."URI", OLD."Name", OLD."Description", OLD."Synonyms", NEW.RMT); END;
CREATE TRIGGER "Workflow_Type__delete" AFTER DELETE ON "Workflow_Type" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Workflow_Type__history" ("RID", "RCT", "RMT", "RCB", "RMB", "ID", "URI", "Name", "Description", "Synonyms", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."ID", OLD."URI", OLD."Name", OLD."Description", OLD."Synonyms", (SELECT time FROM _clock)); END;
CREATE INDEX "Feature_Name__RCT" ON "Feature_Name" ("RCT");
CREATE TRIGGER "Feature_Name__update" AFTER UPDATE ON "Feature_Name" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Feature_Name__history" ("RID", "RCT", "RMT", "RCB", "RMB", "ID", "URI", "Name", "Description", "Synonyms", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."ID", OLD."URI", OLD."Name", OLD."Description", OLD."Synonyms", NEW.RMT); END;
CREATE TRIGGER "Feature_Name__delete" AFTER DELETE ON "Feature_Name" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Feature_Name__history" ("RID", "RCT", "RMT", "RCB", "RMB", "ID", "URI", "Name", "Description", "Synonyms", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."ID", OLD."URI", OLD."Name", OLD."Description", OLD."Synonyms", (SELECT time FROM _clock)); END;
CREATE INDEX "Workflow__Workflow_Type" ON "Workflow" ("Workflow_Type", "RCT");
CREATE INDEX "Workflow__URL" ON "Workflow" ("URL", "RCT");
CREATE INDEX "Workflow__Checksum" ON "Workflow" ("Checksum", "RCT");
CREATE INDEX "Workflow__RCT" ON "Workflow" ("RCT");
CREATE INDEX "Workflow__history__Workflow_Type" ON "Workflow__history" ("Workflow_Type");
CREATE TRIGGER "Workflow__update" AFTER UPDATE ON "Workflow" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Workflow__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Name", "Description", "URL", "Checksum", "Version", "Workflow_Type", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Name", OLD."Description", OLD."URL", OLD."Checksum", OLD."Version", OLD."Workflow_Type", NEW.RMT); END;
CREATE TRIGGER "Workflow__delete" AFTER DELETE ON "Workflow" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Workflow__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Name", "Description", "URL", "Checksum", "Version", "Workflow_Type", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Name", OLD."Description", OLD."URL", OLD."Checksum", OLD."Version", OLD."Workflow_Type", (SELECT time FROM _clock)); END;
CREATE INDEX "Execution__Workflow" ON "Execution" ("Workflow", "RCT");
CREATE INDEX "Execution__Status" ON "Execution" ("Status", "RCT");
CREATE INDEX "Execution__RCT" ON "Execution" ("RCT");
CREATE INDEX "Execution__history__Workflow" ON "Execution__history" ("Workflow");
CREATE TRIGGER "Execution__update" AFTER UPDATE ON "Execution" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Execution__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Workflow", "Description", "Duration", "Status", "Status_Detail", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Workflow", OLD."Description", OLD."Duration", OLD."Status", OLD."Status_Detail", NEW.RMT); END;
CREATE TRIGGER "Execution__delete" AFTER DELETE ON "Execution" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Execution__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Workflow", "Description", "Duration", "Status", "Status_Detail", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Workflow", OLD."Description", OLD."Duration", OLD."Status", OLD."Status_Detail", (SELECT time FROM _clock)); END;
CREATE INDEX "Execution_Execution__Execution" ON "Execution_Execution" ("Execution");
CREATE INDEX "Execution_Execution__Nested_Execution" ON "Execution_Execution" ("Nested_Execution");
CREATE INDEX "Execution_Execution__history__Execution" ON "Execution_Execution__history" ("Execution");
CREATE INDEX "Execution_Execution__history__Nested_Execution" ON "Execution_Execution__history" ("Nested_Execution");
CREATE TRIGGER "Execution_Execution__update" AFTER UPDATE ON "Execution_Execution" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Execution_Execution__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Execution", "Nested_Execution", "Sequence", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Execution", OLD."Nested_Execution", OLD."Sequence", NEW.RMT); END;
CREATE TRIGGER "Execution_Execution__delete" AFTER DELETE ON "Execution_Execution" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Execution_Execution__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Execution", "Nested_Execution", "Sequence", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Execution", OLD."Nested_Execution", OLD."Sequence", (SELECT time FROM _clock)); END;
CREATE INDEX "Execution_Metric__Best" ON "Execution_Metric" ("Name", "Stage", "Best");
CREATE INDEX "Execution_Metric__Last" ON "Execution_Metric" ("Name", "Stage", "Last");
CREATE INDEX "Execution_Metric__Execution" ON "Execution_Metric" ("Execution", "RCT");
CREATE INDEX "Execution_Metric__RCT" ON "Execution_Metric" ("RCT");
CREATE INDEX "Execution_Metric__history__Execution" ON "Execution_Metric__history" ("Execution");
CREATE TRIGGER "Execution_Metric__update" AFTER UPDATE ON "Execution_Metric" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Execution_Metric__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Execution", "Stage", "Name", "Last", "Best", "Best_At", "Larger_Is_Better", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Execution", OLD."Stage", OLD."Name", OLD."Last", OLD."Best", OLD."Best_At", OLD."Larger_Is_Better", NEW.RMT); END;
CREATE TRIGGER "Execution_Metric__delete" AFTER DELETE ON "Execution_Metric" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Execution_Metric__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Execution", "Stage", "Name", "Last", "Best", "Best_At", "Larger_Is_Better", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Execution", OLD."Stage", OLD."Name", OLD."Last", OLD."Best", OLD."Best_At", OLD."Larger_Is_Better", (SELECT time FROM _clock)); END;
CREATE INDEX "Execution_Parameter__Number" ON "Execution_Parameter" ("Name", "Number");
CREATE INDEX "Execution_Parameter__Value" ON "Execution_Parameter" ("Name", "Value");
CREATE INDEX "Execution_Parameter__Execution" ON "Execution_Parameter" ("Execution", "RCT");
CREATE INDEX "Execution_Parameter__RCT" ON "Execution_Parameter" ("RCT");
CREATE INDEX "Execution_Parameter__history__Execution" ON "Execution_Parameter__history" ("Execution");
CREATE TRIGGER "Execution_Parameter__update" AFTER UPDATE ON "Execution_Parameter" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Execution_Parameter__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Execution", "Name", "Value", "Number", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Execution", OLD."Name", OLD."Value", OLD."Number", NEW.RMT); END;
CREATE TRIGGER "Execution_Parameter__delete" AFTER DELETE ON "Execution_Parameter" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Execution_Parameter__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Execution", "Name", "Value", "Number", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Execution", OLD."Name", OLD."Value", OLD."Number", (SELECT time FROM _clock)); END;
CREATE INDEX "Dataset__Version" ON "Dataset" ("Version", "RCT");
CREATE INDEX "Dataset__RCT" ON "Dataset" ("RCT");
CREATE INDEX "Dataset__history__Version" ON "Dataset__history" ("Version");
CREATE TRIGGER "Dataset__update" AFTER UPDATE ON "Dataset" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Dataset__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Description", "Deleted", "Version", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Description", OLD."Deleted", OLD."Version", NEW.RMT); END;
CREATE TRIGGER "Dataset__delete" AFTER DELETE ON "Dataset" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Dataset__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Description", "Deleted", "Version", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Description", OLD."Deleted", OLD."Version", (SELECT time FROM _clock)); END;
CREATE INDEX "Dataset_Version__Dataset" ON "Dataset_Version" ("Dataset", "RCT");
CREATE INDEX "Dataset_Version__Execution" ON "Dataset_Version" ("Execution", "RCT");
CREATE INDEX "Dataset_Version__RCT" ON "Dataset_Version" ("RCT");
CREATE INDEX "Dataset_Version__history__Dataset" ON "Dataset_Version__history" ("Dataset");
CREATE INDEX "Dataset_Version__history__Execution" ON "Dataset_Version__history" ("Execution");
CREATE TRIGGER "Dataset_Version__update" AFTER UPDATE ON "Dataset_Version" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Dataset_Version__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Version", "Description", "Dataset", "Execution", "Minid", "Snapshot", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Version", OLD."Description", OLD."Dataset", OLD."Execution", OLD."Minid", OLD."Snapshot", NEW.RMT); END;
CREATE TRIGGER "Dataset_Version__delete" AFTER DELETE ON "Dataset_Version" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Dataset_Version__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Version", "Description", "Dataset", "Execution", "Minid", "Snapshot", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Version", OLD."Description", OLD."Dataset", OLD."Execution", OLD."Minid", OLD."Snapshot", (SELECT time FROM _clock)); END;
CREATE INDEX "Dataset_Dataset_Type__Dataset" ON "Dataset_Dataset_Type" ("Dataset");
CREATE INDEX "Dataset_Dataset_Type__Dataset_Type" ON "Dataset_Dataset_Type" ("Dataset_Type");
CREATE INDEX "Dataset_Dataset_Type__history__Dataset" ON "Dataset_Dataset_Type__history" ("Dataset");
CREATE INDEX "Dataset_Dataset_Type__history__Dataset_Type" ON "Dataset_Dataset_Type__history" ("Dataset_Type");
CREATE TRIGGER "Dataset_Dataset_Type__update" AFTER UPDATE ON "Dataset_Dataset_Type" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Dataset_Dataset_Type__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Dataset", "Dataset_Type", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Dataset", OLD."Dataset_Type", NEW.RMT); END;
CREATE TRIGGER "Dataset_Dataset_Type__delete" AFTER DELETE ON "Dataset_Dataset_Type" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Dataset_Dataset_Type__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Dataset", "Dataset_Type", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Dataset", OLD."Dataset_Type", (SELECT time FROM _clock)); END;
CREATE INDEX "Dataset_Dataset__Dataset" ON "Dataset_Dataset" ("Dataset");
CREATE INDEX "Dataset_Dataset__Nested_Dataset" ON "Dataset_Dataset" ("Nested_Dataset");
CREATE INDEX "Dataset_Dataset__history__Dataset" ON "Dataset_Dataset__history" ("Dataset");
CREATE INDEX "Dataset_Dataset__history__Nested_Dataset" ON "Dataset_Dataset__history" ("Nested_Dataset");
CREATE TRIGGER "Dataset_Dataset__update" AFTER UPDATE ON "Dataset_Dataset" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Dataset_Dataset__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Dataset", "Nested_Dataset", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Dataset", OLD."Nested_Dataset", NEW.RMT); END;
CREATE TRIGGER "Dataset_Dataset__delete" AFTER DELETE ON "Dataset_Dataset" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Dataset_Dataset__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Dataset", "Nested_Dataset", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Dataset", OLD."Nested_Dataset", (SELECT time FROM _clock)); END;
CREATE INDEX "Dataset_Execution__Dataset" ON "Dataset_Execution" ("Dataset");
CREATE INDEX "Dataset_Execution__Execution" ON "Dataset_Execution" ("Execution");
CREATE INDEX "Dataset_Execution__Dataset_Version" ON "Dataset_Execution" ("Dataset_Version");
CREATE INDEX "Dataset_Execution__history__Dataset" ON "Dataset_Execution__history" ("Dataset");
CREATE INDEX "Dataset_Execution__history__Execution" ON "Dataset_Execution__history" ("Execution");
CREATE INDEX "Dataset_Execution__history__Dataset_Version" ON "Dataset_Execution__history" ("Dataset_Version");
CREATE TRIGGER "Dataset_Execution__update" AFTER UPDATE ON "Dataset_Execution" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Dataset_Execution__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Dataset", "Execution", "Dataset_Version", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Dataset", OLD."Execution", OLD."Dataset_Version", NEW.RMT); END;
CREATE TRIGGER "Dataset_Execution__delete" AFTER DELETE ON "Dataset_Execution" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Dataset_Execution__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Dataset", "Execution", "Dataset_Version", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Dataset", OLD."Execution", OLD."Dataset_Version", (SELECT time FROM _clock)); END;
CREATE INDEX "Execution_Metadata__MD5" ON "Execution_Metadata" ("MD5", "RCT");
CREATE INDEX "Execution_Metadata__RCT" ON "Execution_Metadata" ("RCT");
CREATE TRIGGER "Execution_Metadata__update" AFTER UPDATE ON "Execution_Metadata" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Execution_Metadata__history" ("RID", "RCT", "RMT", "RCB", "RMB", "URL", "Filename", "Description", "Length", "MD5", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."URL", OLD."Filename", OLD."Description", OLD."Length", OLD."MD5", NEW.RMT); END;
CREATE TRIGGER "Execution_Metadata__delete" AFTER DELETE ON "Execution_Metadata" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Execution_Metadata__history" ("RID", "RCT", "RMT", "RCB", "RMB", "URL", "Filename", "Description", "Length", "MD5", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."URL", OLD."Filename", OLD."Description", OLD."Length", OLD."MD5", (SELECT time FROM _clock)); END;
CREATE INDEX "Execution_Metadata_Asset_Type__Execution_Metadata" ON "Execution_Metadata_Asset_Type" ("Execution_Metadata");
CREATE INDEX "Execution_Metadata_Asset_Type__Asset_Type" ON "Execution_Metadata_Asset_Type" ("Asset_Type");
CREATE INDEX "Execution_Metadata_Asset_Type__history__Execution_Metadata" ON "Execution_Metadata_Asset_Type__history" ("Execution_Metadata");
CREATE INDEX "Execution_Metadata_Asset_Type__history__Asset_Type" ON "Execution_Metadata_Asset_Type__history" ("Asset_Type");
CREATE TRIGGER "Execution_Metadata_Asset_Type__update" AFTER UPDATE ON "Execution_Metadata_Asset_Type" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Execution_Metadata_Asset_Type__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Execution_Metadata", "Asset_Type", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Execution_Metadata", OLD."Asset_Type", NEW.RMT); END;
CREATE TRIGGER "Execution_Metadata_Asset_Type__delete" AFTER DELETE ON "Execution_Metadata_Asset_Type" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Execution_Metadata_Asset_Type__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Execution_Metadata", "Asset_Type", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Execution_Metadata", OLD."Asset_Type", (SELECT time FROM _clock)); END;
CREATE INDEX "Execution_Metadata_Execution__Execution_Metadata" ON "Execution_Metadata_Execution" ("Execution_Metadata");
CREATE INDEX "Execution_Metadata_Execution__Execution" ON "Execution_Metadata_Execution" ("Execution");
CREATE INDEX "Execution_Metadata_Execution__Asset_Role" ON "Execution_Metadata_Execution" ("Asset_Role");
CREATE INDEX "Execution_Metadata_Execution__history__Execution_Metadata" ON "Execution_Metadata_Execution__history" ("Execution_Metadata");
CREATE INDEX "Execution_Metadata_Execution__history__Execution" ON "Execution_Metadata_Execution__history" ("Execution");
CREATE INDEX "Execution_Metadata_Execution__history__Asset_Role" ON "Execution_Metadata_Execution__history" ("Asset_Role");
CREATE TRIGGER "Execution_Metadata_Execution__update" AFTER UPDATE ON "Execution_Metadata_Execution" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Execution_Metadata_Execution__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Execution_Metadata", "Execution", "Asset_Role", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Execution_Metadata", OLD."Execution", OLD."Asset_Role", NEW.RMT); END;
CREATE TRIGGER "Execution_Metadata_Execution__delete" AFTER DELETE ON "Execution_Metadata_Execution" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Execution_Metadata_Execution__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Execution_Metadata", "Execution", "Asset_Role", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Execution_Metadata", OLD."Execution", OLD."Asset_Role", (SELECT time FROM _clock)); END;
CREATE INDEX "Execution_Asset__MD5" ON "Execution_Asset" ("MD5", "RCT");
CREATE INDEX "Execution_Asset__RCT" ON "Execution_Asset" ("RCT");
CREATE TRIGGER "Execution_Asset__update" AFTER UPDATE ON "Execution_Asset" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Execution_Asset__history" ("RID", "RCT", "RMT", "RCB", "RMB", "URL", "Filename", "Description", "Length", "MD5", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."URL", OLD."Filename", OLD."Description", OLD."Length", OLD."MD5", NEW.RMT); END;
CREATE TRIGGER "Execution_Asset__delete" AFTER DELETE ON "Execution_Asset" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Execution_Asset__history" ("RID", "RCT", "RMT", "RCB", "RMB", "URL", "Filename", "Description", "Length", "MD5", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."URL", OLD."Filename", OLD."Description", OLD."Length", OLD."MD5", (SELECT time FROM _clock)); END;
CREATE INDEX "Execution_Asset_Asset_Type__Execution_Asset" ON "Execution_Asset_Asset_Type" ("Execution_Asset");
CREATE INDEX "Execution_Asset_Asset_Type__Asset_Type" ON "Execution_Asset_Asset_Type" ("Asset_Type");
CREATE INDEX "Execution_Asset_Asset_Type__history__Execution_Asset" ON "Execution_Asset_Asset_Type__history" ("Execution_Asset");
CREATE INDEX "Execution_Asset_Asset_Type__history__Asset_Type" ON "Execution_Asset_Asset_Type__history" ("Asset_Type");
CREATE TRIGGER "Execution_Asset_Asset_Type__update" AFTER UPDATE ON "Execution_Asset_Asset_Type" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Execution_Asset_Asset_Type__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Execution_Asset", "Asset_Type", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Execution_Asset", OLD."Asset_Type", NEW.RMT); END;
CREATE TRIGGER "Execution_Asset_Asset_Type__delete" AFTER DELETE ON "Execution_Asset_Asset_Type" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Execution_Asset_Asset_Type__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Execution_Asset", "Asset_Type", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Execution_Asset", OLD."Asset_Type", (SELECT time FROM _clock)); END;
CREATE INDEX "Execution_Asset_Execution__Execution_Asset" ON "Execution_Asset_Execution" ("Execution_Asset");
CREATE INDEX "Execution_Asset_Execution__Execution" ON "Execution_Asset_Execution" ("Execution");
CREATE INDEX "Execution_Asset_Execution__Asset_Role" ON "Execution_Asset_Execution" ("Asset_Role");
CREATE INDEX "Execution_Asset_Execution__history__Execution_Asset" ON "Execution_Asset_Execution__history" ("Execution_Asset");
CREATE INDEX "Execution_Asset_Execution__history__Execution" ON "Execution_Asset_Execution__history" ("Execution");
CREATE INDEX "Execution_Asset_Execution__history__Asset_Role" ON "Execution_Asset_Execution__history" ("Asset_Role");
CREATE TRIGGER "Execution_Asset_Execution__update" AFTER UPDATE ON "Execution_Asset_Execution" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Execution_Asset_Execution__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Execution_Asset", "Execution", "Asset_Role", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Execution_Asset", OLD."Execution", OLD."Asset_Role", NEW.RMT); END;
CREATE TRIGGER "Execution_Asset_Execution__delete" AFTER DELETE ON "Execution_Asset_Execution" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Execution_Asset_Execution__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Execution_Asset", "Execution", "Asset_Role", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Execution_Asset", OLD."Execution", OLD."Asset_Role", (SELECT time FROM _clock)); END;
CREATE INDEX "File__MD5" ON "File" ("MD5", "RCT");
CREATE INDEX "File__RCT" ON "File" ("RCT");
CREATE TRIGGER "File__update" AFTER UPDATE ON "File" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "File__history" ("RID", "RCT", "RMT", "RCB", "RMB", "URL", "Filename", "Description", "Length", "MD5", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."URL", OLD."Filename", OLD."Description", OLD."Length", OLD."MD5", NEW.RMT); END;
CREATE TRIGGER "File__delete" AFTER DELETE ON "File" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "File__history" ("RID", "RCT", "RMT", "RCB", "RMB", "URL", "Filename", "Description", "Length", "MD5", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."URL", OLD."Filename", OLD."Description", OLD."Length", OLD."MD5", (SELECT time FROM _clock)); END;
CREATE INDEX "File_Asset_Type__File" ON "File_Asset_Type" ("File");
CREATE INDEX "File_Asset_Type__Asset_Type" ON "File_Asset_Type" ("Asset_Type");
CREATE INDEX "File_Asset_Type__history__File" ON "File_Asset_Type__history" ("File");
CREATE INDEX "File_Asset_Type__history__Asset_Type" ON "File_Asset_Type__history" ("Asset_Type");
CREATE TRIGGER "File_Asset_Type__update" AFTER UPDATE ON "File_Asset_Type" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "File_Asset_Type__history" ("RID", "RCT", "RMT", "RCB", "RMB", "File", "Asset_Type", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."File", OLD."Asset_Type", NEW.RMT); END;
CREATE TRIGGER "File_Asset_Type__delete" AFTER DELETE ON "File_Asset_Type" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "File_Asset_Type__history" ("RID", "RCT", "RMT", "RCB", "RMB", "File", "Asset_Type", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."File", OLD."Asset_Type", (SELECT time FROM _clock)); END;
CREATE INDEX "File_Execution__File" ON "File_Execution" ("File");
CREATE INDEX "File_Execution__Execution" ON "File_Execution" ("Execution");
CREATE INDEX "File_Execution__Asset_Role" ON "File_Execution" ("Asset_Role");
CREATE INDEX "File_Execution__history__File" ON "File_Execution__history" ("File");
CREATE INDEX "File_Execution__history__Execution" ON "File_Execution__history" ("Execution");
CREATE INDEX "File_Execution__history__Asset_Role" ON "File_Execution__history" ("Asset_Role");
CREATE TRIGGER "File_Execution__update" AFTER UPDATE ON "File_Execution" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "File_Execution__history" ("RID", "RCT", "RMT", "RCB", "RMB", "File", "Execution", "Asset_Role", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."File", OLD."Execution", OLD."Asset_Role", NEW.RMT); END;
CREATE TRIGGER "File_Execution__delete" AFTER DELETE ON "File_Execution" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "File_Execution__history" ("RID", "RCT", "RMT", "RCB", "RMB", "File", "Execution", "Asset_Role", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."File", OLD."Execution", OLD."Asset_Role", (SELECT time FROM _clock)); END;
CREATE INDEX "Model__MD5" ON "Model" ("MD5", "RCT");
CREATE INDEX "Model__RCT" ON "Model" ("RCT");
CREATE TRIGGER "Model__update" AFTER UPDATE ON "Model" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Model__history" ("RID", "RCT", "RMT", "RCB", "RMB", "URL", "Filename", "Description", "Length", "MD5", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."URL", OLD."Filename", OLD."Description", OLD."Length", OLD."MD5", NEW.RMT); END;
CREATE TRIGGER "Model__delete" AFTER DELETE ON "Model" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Model__history" ("RID", "RCT", "RMT", "RCB", "RMB", "URL", "Filename", "Description", "Length", "MD5", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."URL", OLD."Filename", OLD."Description", OLD."Length", OLD."MD5", (SELECT time FROM _clock)); END;
CREATE INDEX "Model_Asset_Type__Model" ON "Model_Asset_Type" ("Model");
CREATE INDEX "Model_Asset_Type__Asset_Type" ON "Model_Asset_Type" ("Asset_Type");
CREATE INDEX "Model_Asset_Type__history__Model" ON "Model_Asset_Type__history" ("Model");
CREATE INDEX "Model_Asset_Type__history__Asset_Type" ON "Model_Asset_Type__history" ("Asset_Type");
CREATE TRIGGER "Model_Asset_Type__update" AFTER UPDATE ON "Model_Asset_Type" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Model_Asset_Type__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Model", "Asset_Type", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Model", OLD."Asset_Type", NEW.RMT); END;
CREATE TRIGGER "Model_Asset_Type__delete" AFTER DELETE ON "Model_Asset_Type" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Model_Asset_Type__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Model", "Asset_Type", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Model", OLD."Asset_Type", (SELECT time FROM _clock)); END;
CREATE INDEX "Model_Execution__Model" ON "Model_Execution" ("Model");
CREATE INDEX "Model_Execution__Execution" ON "Model_Execution" ("Execution");
CREATE INDEX "Model_Execution__Asset_Role" ON "Model_Execution" ("Asset_Role");
CREATE INDEX "Model_Execution__history__Model" ON "Model_Execution__history" ("Model");
CREATE INDEX "Model_Execution__history__Execution" ON "Model_Execution__history" ("Execution");
CREATE INDEX "Model_Execution__history__Asset_Role" ON "Model_Execution__history" ("Asset_Role");
CREATE TRIGGER "Model_Execution__update" AFTER UPDATE ON "Model_Execution" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Model_Execution__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Model", "Execution", "Asset_Role", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Model", OLD."Execution", OLD."Asset_Role", NEW.RMT); END;
CREATE TRIGGER "Model_Execution__delete" AFTER DELETE ON "Model_Execution" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Model_Execution__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Model", "Execution", "Asset_Role", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Model", OLD."Execution", OLD."Asset_Role", (SELECT time FROM _clock)); END;
CREATE INDEX "Image__MD5" ON "Image" ("MD5", "RCT");
CREATE INDEX "Image__RCT" ON "Image" ("RCT");
CREATE TRIGGER "Image__update" AFTER UPDATE ON "Image" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Image__history" ("RID", "RCT", "RMT", "RCB", "RMB", "URL", "Filename", "Description", "Length", "MD5", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."URL", OLD."Filename", OLD."Description", OLD."Length", OLD."MD5", NEW.RMT); END;
CREATE TRIGGER "Image__delete" AFTER DELETE ON "Image" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Image__history" ("RID", "RCT", "RMT", "RCB", "RMB", "URL", "Filename", "Description", "Length", "MD5", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."URL", OLD."Filename", OLD."Description", OLD."Length", OLD."MD5", (SELECT time FROM _clock)); END;
CREATE INDEX "Image_Asset_Type__Image" ON "Image_Asset_Type" ("Image");
CREATE INDEX "Image_Asset_Type__Asset_Type" ON "Image_Asset_Type" ("Asset_Type");
CREATE INDEX "Image_Asset_Type__history__Image" ON "Image_Asset_Type__history" ("Image");
CREATE INDEX "Image_Asset_Type__history__Asset_Type" ON "Image_Asset_Type__history" ("Asset_Type");
CREATE TRIGGER "Image_Asset_Type__update" AFTER UPDATE ON "Image_Asset_Type" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Image_Asset_Type__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Image", "Asset_Type", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Image", OLD."Asset_Type", NEW.RMT); END;
CREATE TRIGGER "Image_Asset_Type__delete" AFTER DELETE ON "Image_Asset_Type" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Image_Asset_Type__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Image", "Asset_Type", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Image", OLD."Asset_Type", (SELECT time FROM _clock)); END;
CREATE INDEX "Image_Execution__Image" ON "Image_Execution" ("Image");
CREATE INDEX "Image_Execution__Execution" ON "Image_Execution" ("Execution");
CREATE INDEX "Image_Execution__Asset_Role" ON "Image_Execution" ("Asset_Role");
CREATE INDEX "Image_Execution__history__Image" ON "Image_Execution__history" ("Image");
CREATE INDEX "Image_Execution__history__Execution" ON "Image_Execution__history" ("Execution");
CREATE INDEX "Image_Execution__history__Asset_Role" ON "Image_Execution__history" ("Asset_Role");
CREATE TRIGGER "Image_Execution__update" AFTER UPDATE ON "Image_Execution" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Image_Execution__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Image", "Execution", "Asset_Role", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Image", OLD."Execution", OLD."Asset_Role", NEW.RMT); END;
CREATE TRIGGER "Image_Execution__delete" AFTER DELETE ON "Image_Execution" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Image_Execution__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Image", "Execution", "Asset_Role", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Image", OLD."Execution", OLD."Asset_Role", (SELECT time FROM _clock)); END;
CREATE INDEX "Dataset_File__Dataset" ON "Dataset_File" ("Dataset");
CREATE INDEX "Dataset_File__File" ON "Dataset_File" ("File");
CREATE INDEX "Dataset_File__history__Dataset" ON "Dataset_File__history" ("Dataset");
CREATE INDEX "Dataset_File__history__File" ON "Dataset_File__history" ("File");
CREATE TRIGGER "Dataset_File__update" AFTER UPDATE ON "Dataset_File" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Dataset_File__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Dataset", "File", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Dataset", OLD."File", NEW.RMT); END;
CREATE TRIGGER "Dataset_File__delete" AFTER DELETE ON "Dataset_File" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Dataset_File__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Dataset", "File", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Dataset", OLD."File", (SELECT time FROM _clock)); END;
CREATE INDEX "Dataset_Model__Dataset" ON "Dataset_Model" ("Dataset");
CREATE INDEX "Dataset_Model__Model" ON "Dataset_Model" ("Model");
CREATE INDEX "Dataset_Model__history__Dataset" ON "Dataset_Model__history" ("Dataset");
CREATE INDEX "Dataset_Model__history__Model" ON "Dataset_Model__history" ("Model");
CREATE TRIGGER "Dataset_Model__update" AFTER UPDATE ON "Dataset_Model" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Dataset_Model__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Dataset", "Model", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Dataset", OLD."Model", NEW.RMT); END;
CREATE TRIGGER "Dataset_Model__delete" AFTER DELETE ON "Dataset_Model" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Dataset_Model__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Dataset", "Model", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Dataset", OLD."Model", (SELECT time FROM _clock)); END;
CREATE INDEX "Dataset_Image__Dataset" ON "Dataset_Image" ("Dataset");
CREATE INDEX "Dataset_Image__Image" ON "Dataset_Image" ("Image");
CREATE INDEX "Dataset_Image__history__Dataset" ON "Dataset_Image__history" ("Dataset");
CREATE INDEX "Dataset_Image__history__Image" ON "Dataset_Image__history" ("Image");
CREATE TRIGGER "Dataset_Image__update" AFTER UPDATE ON "Dataset_Image" WHEN OLD.RMT <> NEW.RMT BEGIN INSERT INTO "Dataset_Image__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Dataset", "Image", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Dataset", OLD."Image", NEW.RMT); END;
CREATE TRIGGER "Dataset_Image__delete" AFTER DELETE ON "Dataset_Image" WHEN OLD.RMT < (SELECT time FROM _clock) BEGIN INSERT INTO "Dataset_Image__history" ("RID", "RCT", "RMT", "RCB", "RMB", "Dataset", "Image", "__until") VALUES (OLD."RID", OLD."RCT", OLD."RMT", OLD."RCB", OLD."RMB", OLD."Dataset", OLD."Image", (SELECT time FROM _clock)); END;
COMMIT;
PRAGMA application_id = 1685223021;
PRAGMA user_version = 4;
