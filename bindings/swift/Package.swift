// swift-tools-version:6.0
import Foundation
import PackageDescription

// Apple's systems get the library as an XCFramework, which `just package-apple` builds on a Mac. Elsewhere it is a shared library
// of this machine in the folder FULCRUM_LIBRARY_DIR, which scripts/swift.sh builds and names.
#if os(Linux)
    let folder = ProcessInfo.processInfo.environment["FULCRUM_LIBRARY_DIR"] ?? Context.packageDirectory + "/lib"
    let library = Target.target(
        name: "FulcrumFFI",
        linkerSettings: [
            .unsafeFlags(["-L\(folder)", "-lfulcrum_ffi", "-Xlinker", "-rpath", "-Xlinker", folder])
        ]
    )
#else
    let library = Target.binaryTarget(name: "FulcrumFFI", path: "FulcrumFFI.xcframework")
#endif

let package = Package(
    name: "Fulcrum",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [.library(name: "Fulcrum", targets: ["Fulcrum"])],
    targets: [
        library,
        .target(
            name: "Fulcrum",
            dependencies: ["FulcrumFFI"],
            // ggml's; on Linux its shared library names them itself.
            linkerSettings: [
                .linkedLibrary("c++", .when(platforms: [.iOS, .macOS])),
                .linkedFramework("Accelerate", .when(platforms: [.iOS, .macOS])),
                .linkedFramework("Foundation", .when(platforms: [.iOS, .macOS])),
            ]
        ),
        .testTarget(name: "FulcrumTests", dependencies: ["Fulcrum"]),
    ]
)
