//! `grpc.reflection`: what this server offers, from the descriptors of `proto/`.
//!
//! Versions v1 and v1alpha have the same messages on the wire, so one implementation serves both.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};

use super::wire::{decoded, reply};
use crate::net::grpc::{Call, Code, Status};
use crate::proto::DESCRIPTOR_SET;
use crate::proto::grpc::reflection::server_reflection_request::MessageRequest;
use crate::proto::grpc::reflection::server_reflection_response::MessageResponse;
use crate::proto::grpc::reflection::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
};

/// Answers from the descriptor set.
#[derive(Debug)]
pub(super) struct ReflectionService {
    /// Names of the services that are served, ascending.
    services: Vec<&'static str>,
    files: BTreeMap<String, File>,
    /// The file of each full name.
    symbols: BTreeMap<String, String>,
}

#[derive(Debug)]
struct File {
    encoded: Bytes,
    imports: Vec<String>,
}

impl ReflectionService {
    /// Reflection of a server of these services.
    pub(super) fn new(mut services: Vec<&'static str>) -> Self {
        services.sort_unstable();
        services.dedup();
        let set = FileDescriptorSet::decode(DESCRIPTOR_SET).expect("the build encoded it");
        let mut reflection = Self {
            services,
            files: BTreeMap::new(),
            symbols: BTreeMap::new(),
        };
        set.file.into_iter().for_each(|file| reflection.add(file));
        reflection
    }

    pub(super) async fn info(&self, mut call: Call) -> Result<(), Status> {
        while let Some(message) = call.message().await? {
            let request: ServerReflectionRequest = decoded(message)?;
            reply(call.sink(), &self.answer(request)).await?;
        }
        Ok(())
    }

    fn answer(&self, request: ServerReflectionRequest) -> ServerReflectionResponse {
        let message = match &request.message_request {
            None => Err((Code::InvalidArgument, "the request asks for nothing".into())),
            Some(MessageRequest::FileByFilename(name)) => self.file(name),
            Some(MessageRequest::FileContainingSymbol(symbol)) => self.file_of(symbol),
            Some(MessageRequest::FileContainingExtension(extension)) => {
                Err(not_found("extension", &extension.containing_type))
            }
            Some(MessageRequest::AllExtensionNumbersOfType(name)) => {
                match self.symbols.contains_key(name) {
                    true => Ok(MessageResponse::AllExtensionNumbersResponse(
                        ExtensionNumberResponse {
                            base_type_name: name.clone(),
                            extension_number: Vec::new(),
                        },
                    )),
                    false => Err(not_found("message", name)),
                }
            }
            Some(MessageRequest::ListServices(_)) => {
                Ok(MessageResponse::ListServicesResponse(ListServiceResponse {
                    service: self
                        .services
                        .iter()
                        .map(|name| ServiceResponse {
                            name: (*name).to_owned(),
                        })
                        .collect(),
                }))
            }
        };
        let message = message.unwrap_or_else(|(code, error_message)| {
            MessageResponse::ErrorResponse(ErrorResponse {
                error_code: code.number().into(),
                error_message,
            })
        });
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(message),
        }
    }

    fn file_of(&self, symbol: &str) -> Result<MessageResponse, (Code, String)> {
        match self.symbols.get(symbol) {
            Some(file) => self.file(file),
            None => Err(not_found("symbol", symbol)),
        }
    }

    /// The file and all that it needs, so that a client has to ask but once.
    fn file(&self, name: &str) -> Result<MessageResponse, (Code, String)> {
        let mut names = vec![name];
        let mut next = 0;
        while let Some(name) = names.get(next) {
            let file = self.files.get(*name);
            let file = file.ok_or_else(|| not_found("file", name))?;
            for import in &file.imports {
                if !names.contains(&import.as_str()) {
                    names.push(import);
                }
            }
            next += 1;
        }
        let files = names.iter().filter_map(|name| self.files.get(*name));
        let file_descriptor_proto = files.map(|file| file.encoded.clone()).collect();
        Ok(MessageResponse::FileDescriptorResponse(
            FileDescriptorResponse {
                file_descriptor_proto,
            },
        ))
    }

    fn add(&mut self, file: FileDescriptorProto) {
        let mut names = Names {
            file: file.name().to_owned(),
            symbols: &mut self.symbols,
        };
        let package = file.package();
        file.message_type
            .iter()
            .for_each(|message| names.message(package, message));
        file.enum_type
            .iter()
            .for_each(|of| names.enumeration(package, of));
        file.service
            .iter()
            .for_each(|service| names.service(package, service));
        let name = file.name().to_owned();
        let encoded = Bytes::from(file.encode_to_vec());
        let imports = file.dependency;
        self.files.insert(name, File { encoded, imports });
    }
}

fn not_found(what: &str, name: &str) -> (Code, String) {
    (Code::NotFound, format!("{what} {name:?} is not known"))
}

/// Notes which names a file defines.
struct Names<'a> {
    file: String,
    symbols: &'a mut BTreeMap<String, String>,
}

impl Names<'_> {
    fn note(&mut self, scope: &str, name: &str) -> String {
        let full = match scope {
            "" => name.to_owned(),
            _ => format!("{scope}.{name}"),
        };
        self.symbols.insert(full.clone(), self.file.clone());
        full
    }

    fn message(&mut self, scope: &str, message: &DescriptorProto) {
        let full = self.note(scope, message.name());
        for field in &message.field {
            self.note(&full, field.name());
        }
        for of in &message.oneof_decl {
            self.note(&full, of.name());
        }
        for nested in &message.nested_type {
            self.message(&full, nested);
        }
        for of in &message.enum_type {
            self.enumeration(&full, of);
        }
    }

    /// An enum's values stand in the scope that the enum itself stands in.
    fn enumeration(&mut self, scope: &str, of: &EnumDescriptorProto) {
        self.note(scope, of.name());
        for value in &of.value {
            self.note(scope, value.name());
        }
    }

    fn service(&mut self, scope: &str, service: &ServiceDescriptorProto) {
        let full = self.note(scope, service.name());
        for method in &service.method {
            self.note(&full, method.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> ReflectionService {
        ReflectionService::new(vec!["thanos.Store", "grpc.health.v1.Health"])
    }

    fn ask(request: MessageRequest) -> MessageResponse {
        let asked = ServerReflectionRequest {
            host: "here".to_owned(),
            message_request: Some(request),
        };
        let answer = service().answer(asked.clone());
        assert_eq!(answer.original_request, Some(asked));
        assert_eq!(answer.valid_host, "here");
        answer.message_response.unwrap()
    }

    fn names(response: MessageResponse) -> Vec<String> {
        let MessageResponse::FileDescriptorResponse(files) = response else {
            panic!("{response:?}");
        };
        let file = |bytes: &Bytes| FileDescriptorProto::decode(bytes.clone()).unwrap();
        let names = files.file_descriptor_proto.iter();
        names.map(|bytes| file(bytes).name().to_owned()).collect()
    }

    #[test]
    fn only_what_is_served_is_listed() {
        let MessageResponse::ListServicesResponse(list) =
            ask(MessageRequest::ListServices(String::new()))
        else {
            panic!("another answer");
        };
        let names: Vec<String> = list.service.into_iter().map(|s| s.name).collect();
        assert_eq!(names, ["grpc.health.v1.Health", "thanos.Store"]);
    }

    #[test]
    fn a_symbol_comes_with_every_file_it_needs() {
        for symbol in [
            "thanos.Store",
            "thanos.Store.Series",
            "thanos.SeriesRequest",
            "thanos.SeriesRequest.min_time",
            "thanos.SeriesResponse.result",
            "thanos.RAW",
        ] {
            let found = names(ask(MessageRequest::FileContainingSymbol(symbol.into())));
            let expected = [
                "thanos/store.proto",
                "google/protobuf/any.proto",
                "thanos/types.proto",
            ];
            assert_eq!(found, expected, "{symbol}");
        }
        let by_name = names(ask(MessageRequest::FileByFilename(
            "thanos/types.proto".into(),
        )));
        assert_eq!(by_name, ["thanos/types.proto"]);
    }

    #[test]
    fn what_is_not_there_is_said() {
        for request in [
            MessageRequest::FileByFilename("no.proto".into()),
            MessageRequest::FileContainingSymbol("thanos.Nothing".into()),
            MessageRequest::AllExtensionNumbersOfType("thanos.Nothing".into()),
        ] {
            let MessageResponse::ErrorResponse(error) = ask(request) else {
                panic!("another answer");
            };
            assert_eq!(error.error_code, 5);
            assert!(error.error_message.ends_with("is not known"), "{error:?}");
        }
    }
}
